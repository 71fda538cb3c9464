"""A term as the fence knows it."""

from typing import Protocol


class FencedTerm(Protocol):
    """The identity of a term: the fence compares all three parts."""

    @property
    def name(self) -> str:
        """The name of the lease."""

    @property
    def token(self) -> int:
        """The fencing token: larger in every later term."""

    @property
    def holder(self) -> str:
        """The instance id of the leader."""
