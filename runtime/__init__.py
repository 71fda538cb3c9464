"""Modules that both containers use: listeners, name lookups, logs, text for terminals.

The package imports nothing of `sidecar` or `service`; both import this package.
"""
