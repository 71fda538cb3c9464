"""Default addresses of the listeners.

The health check imports them from here, because an import of the settings would slow down its start.
"""

DEFAULT = "0.0.0.0:8080"
"""Default address of the public listener."""
INTERNAL_DEFAULT = "0.0.0.0:9101"
"""Default address of the internal listener."""
