"""Default addresses of the listeners, apart from the settings: the health check must start quickly."""

DEFAULT = "0.0.0.0:8080"
"""Default address of the public listener."""
INTERNAL_DEFAULT = "0.0.0.0:9101"
"""Default address of the internal listener."""
