"""The error of a request to the sidecar without a valid answer."""


class Unknown(Exception):
    """The sidecar gave no valid answer; the text says why, in the same words each time for the same reason."""
