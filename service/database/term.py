"""The identity of a term for the fence."""

from typing import Protocol


class FencedTerm(Protocol):
    """The identity of a term. The fence compares all three fields."""

    @property
    def name(self) -> str:
        """The name of the lease."""

    @property
    def token(self) -> int:
        """The fencing token: larger in every later term."""

    @property
    def holder(self) -> str:
        """The instance id of the leader."""
