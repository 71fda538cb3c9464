"""Modules for the sidecar and the service: listeners, name lookups, logs, text for terminals.

The package imports nothing of `sidecar` or `service`; both import this package.
"""
