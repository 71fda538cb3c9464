"""What the work asks of the term it runs in."""

from typing import Protocol


class Term(Protocol):
    """One tenure of this process under one lease; `sidecar.client.Term` is one, and so is a run by hand."""

    @property
    def name(self) -> str:
        """The lease."""

    @property
    def token(self) -> int:
        """The fencing token: larger in every later term."""

    @property
    def holder(self) -> str:
        """The instance id."""

    def check(self) -> None:
        """Raise `sidecar.client.TermOver` if this term is over; called between two steps of the work."""
