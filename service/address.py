"""Default addresses of the listeners. The health check starts quickly because it imports these and not the settings."""

DEFAULT = "0.0.0.0:8080"
"""Default address of the public listener."""
INTERNAL_DEFAULT = "0.0.0.0:9101"
"""Default address of the internal listener."""
