"""Default addresses of the listeners. The health check imports only them, not the settings, and so starts quickly."""

DEFAULT = "0.0.0.0:8080"
"""Default address of the public listener."""
INTERNAL_DEFAULT = "0.0.0.0:9101"
"""Default address of the internal listener."""
