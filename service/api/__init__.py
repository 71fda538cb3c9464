"""The HTTP interface: the public routes, the internal routes, and what every request passes through."""
