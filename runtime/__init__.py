"""Modules that the sidecar and the service both use: listeners, name lookups, logs, text for terminals.

The package imports nothing of `sidecar` or `service`; both import this package.
"""
