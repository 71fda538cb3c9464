"""What the processes of both containers need and neither owns: listeners, name lookups, text for logs and terminals.

The package imports nothing of `sidecar` or `service`; both import the package.
"""
