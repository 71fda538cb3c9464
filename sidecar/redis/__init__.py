"""Redis as the sidecar uses it: connections, the leases' scripts, and the watch for changes."""
