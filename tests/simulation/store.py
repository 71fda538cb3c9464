"""The fence in the database, a row that names the term that may write.

A transaction locks the row FOR SHARE from its check to its commit.
"""

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Tenure:
    """A term in the world: `ordinal` counts the terms of all candidates in the order of their acquires.

    `doubtful` is true for a term that was acquired during an exception of the contract. `client` is the name of the
    client that got the token, '' before the first grant.
    """

    holder: str
    token: int
    ordinal: int
    doubtful: bool
    client: str = ""


@dataclass(slots=True)
class Store:
    """The row of the fence, and the transactions whose lock delays a higher term."""

    token: int = 0
    holder: str = ""
    shared: int = 0
    """The number of transactions that hold the row FOR SHARE."""
    waiting: list[Tenure] = field(default_factory=list)
    """The terms that wait for the end of these transactions."""

    def claim(self, tenure: Tenure) -> bool | None:
        """Raise the fence to a term.

        Returns true if the fence now names the term, false if the term's token is too small, None if the term waits.
        """
        if (self.token, self.holder) == (tenure.token, tenure.holder):
            return True
        if tenure.token <= self.token:
            return False
        if self.shared:
            if tenure not in self.waiting:
                self.waiting.append(tenure)
            return None
        self.token, self.holder = tenure.token, tenure.holder
        return True

    def admits(self, tenure: Tenure) -> bool:
        """Whether a transaction of this term may write."""
        return (self.token, self.holder) == (tenure.token, tenure.holder)

    def share(self) -> None:
        """A transaction has read the row FOR SHARE."""
        self.shared += 1

    def unshare(self) -> None:
        """A transaction has ended; if it was the last one, the waiting terms claim the fence."""
        self.shared -= 1
        if not self.shared:
            waiting, self.waiting = self.waiting, []
            for tenure in waiting:
                self.claim(tenure)
