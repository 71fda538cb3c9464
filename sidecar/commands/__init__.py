"""The operator's commands of `python -m sidecar`."""
