"""The error of a request to the sidecar without a valid answer."""


class Unknown(Exception):
    """The sidecar gave no valid answer. The text says why.

    Args:
        reason: a text that is always the same for the same reason.
        explanation: the text of the answer, which may be different each time.
    """

    def __init__(self, reason: str, explanation: str = "") -> None:
        super().__init__(reason + explanation)
        self.reason = reason


class NoAnswerInTime(Unknown):
    """No answer came within the limit of the request."""
