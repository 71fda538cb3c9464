"""The commands of `python -m service`, apart from the service itself."""
