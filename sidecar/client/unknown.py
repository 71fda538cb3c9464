"""The error of a request to the sidecar without a valid answer."""


class Unknown(Exception):
    """The sidecar gave no valid answer. The text says why; the same reason always has the same text."""


class NoAnswerInTime(Unknown):
    """No answer came within the limit of the request."""
