"""The commands of `python -m sidecar`, apart from the sidecar itself."""
