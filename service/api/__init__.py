"""The HTTP interface: the public and the internal routes, and the middleware of both."""
