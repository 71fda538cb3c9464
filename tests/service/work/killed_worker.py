"""`python -m tests.service.work.killed_worker DSN`: runs jobs in processes that kill themselves when told.

A line of its stdin is an attempt, a JSON object of the arguments of `attempt`. For each it forks, which takes a
hundredth of the time that a new interpreter needs; answers with the statements that were sent, a JSON list, if the
attempt came to its end; and then with how the process ended: its exit status, or minus the signal.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg

from service.database.store import Store
from service.portfolio.records import JobName
from tests.service.work.test_jobs import Disturbed

SENDING = ("execute", "fetch", "fetchrow", "fetchval", "copy_to_table", "copy_from_query")


def say(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def count_statements(kill_at: int | None, of_commits: bool) -> list[str]:
    """The statements of writing transactions that this process sends; as soon as that one has been sent it is no more.

    The number `kill_at` is of all of them, or of the commits alone: these are the same in each run, while the others
    are sent by two writers beside each other, in whichever order. Statements that read are not counted: how many there
    are differs from run to run, with who of the readers beside each other comes first upon a symbol.
    """
    sent: list[str] = []
    writing: set[object] = set()

    def counted(send: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def count(self: object, query: str, *parameters: Any, **options: Any) -> Any:
            if query.startswith("BEGIN") and "READ ONLY" not in query:
                writing.add(self)
            if self in writing:
                sent.append(query)
                counted_now = query == "COMMIT;" or not of_commits
                place = sent.count("COMMIT;") if of_commits else len(sent)
                if counted_now and place == kill_at:
                    # the server gets it: the loop comes round once it is written to the socket
                    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)
            if query == "COMMIT;":
                writing.discard(self)
            return await send(self, query, *parameters, **options)

        return count

    for name in SENDING:
        setattr(asyncpg.Connection, name, counted(getattr(asyncpg.Connection, name)))
    return sent


async def attempt(dsn: str, job: JobName, token: int, base: int, kill_at: int | None, of_commits: bool) -> list[str]:
    """One attempt of the run, under the term of that token."""
    raw = await asyncpg.connect(dsn)
    async with await Store.connect(dsn, connections=2) as store:
        work = Disturbed(store, raw, job)
        work.token, work.base = token - 1, base
        sent = count_statements(kill_at, of_commits)
        assert await work.attempt()
    await raw.close()
    return sent


def main(dsn: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            say(asyncio.run(attempt(dsn, **json.loads(line))))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        say(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1])
