"""The records of a client, written in its own process: its beliefs that it leads, and its refused writes and claims.

The production client keeps a belief in a `Grant`: the diary records the start of the belief, each extension with its
deadline, and the end of the belief. Each record is one JSON line in one `write` to a file opened for appending, so
nothing is lost when the process is killed. Times are in seconds of CLOCK_BOOTTIME, which all processes of a machine
share.
"""

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import service.database.store
import sidecar.client.leadership
from runtime.clock import elapsed
from service.database.connection import StaleTerm
from service.database.fenced_writes import FencedWrites
from service.database.term import FencedTerm
from service.portfolio.valuation import Values
from sidecar.client.term import Grant, Term

VARIABLE = "CHAOS_DIARY"
"""Name of the environment variable with the path of the file."""


class Diary:
    """The file with the records of this process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._process = f"{os.getpid()}@{elapsed():.6f}"  # the kernel reuses pids
        self._grants = 0

    def new_grant(self) -> str:
        """Return a new name for a grant."""
        self._grants += 1
        return f"{self._process}.{self._grants}"

    def write(self, what: str, **fields: object) -> None:
        """Write one line."""
        os.write(self._file, json.dumps({"what": what, **fields}).encode() + b"\n")


def observe(diary: Diary) -> None:
    """Record from now on the beliefs of this process's clients, and the writes and claims that the database refuses."""

    class ObservedGrant(Grant):
        """Records each deadline until which the client believes that it leads. A grant belongs to one term."""

        def __init__(self, clock: Callable[[], float], stop_before: float) -> None:
            super().__init__(clock, stop_before)
            self.name = diary.new_grant()
            self.term: Term | None = None

        def begins(self, term: Term, at: float) -> None:
            self.term = term
            fields = {"lease": term.name, "token": term.token, "holder": term.holder}
            diary.write("believes", grant=self.name, at=at, until=self._deadline, **fields)

        def extend(self, deadline: float) -> bool:
            extended = super().extend(deadline)
            if extended and self.term is not None:
                diary.write("extended", grant=self.name, at=elapsed(), until=deadline)
            return extended

        def end(self) -> None:
            super().end()
            diary.write("ended", grant=self.name, at=elapsed())

    def observed_term(
        name: str, token: int, holder: str, remaining: Callable[[], float], *more: Any, **named: Any
    ) -> Term:
        at = elapsed()
        term = Term(name, token, holder, remaining, *more, **named)
        grant = getattr(remaining, "__self__", None)
        assert isinstance(grant, ObservedGrant), "the client no longer creates its grants with `Grant`"
        grant.begins(term, at)
        return term

    patch.object(sidecar.client.leadership, "Grant", ObservedGrant).start()
    patch.object(sidecar.client.leadership, "Term", observed_term).start()
    _observe_store(diary)


def _observe_store(diary: Diary) -> None:
    store = service.database.store.Store
    claim_fence, fenced_lanes = store.claim_fence, store.fenced_lanes  # fenced_lanes makes every fenced transaction

    def refused(term: FencedTerm, began: float) -> None:
        diary.write("refused", lease=term.name, token=term.token, began=began, at=elapsed())

    async def observed_claim(self: service.database.store.Store, term: FencedTerm) -> None:
        began = elapsed()
        try:
            await claim_fence(self, term)
        except StaleTerm:
            refused(term, began)
            raise

    @asynccontextmanager
    async def observed_lanes(
        self: service.database.store.Store,
        term: FencedTerm,
        lanes: Sequence[AsyncIterator[Values] | None],
        *turn: Any,
    ) -> AsyncIterator[Sequence[FencedWrites]]:
        began = elapsed()
        try:
            async with fenced_lanes(self, term, lanes, *turn) as writes:
                yield writes
        except StaleTerm:
            refused(term, began)
            raise

    patch.object(store, "claim_fence", observed_claim).start()
    patch.object(store, "fenced_lanes", observed_lanes).start()
