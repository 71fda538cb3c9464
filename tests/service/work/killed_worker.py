"""`python -m tests.service.work.killed_worker DSN`: runs jobs in processes that kill themselves at a given statement.

Each line of stdin is one attempt: a JSON object with the arguments of `attempt`. For each line the worker forks, which
takes a hundredth of the time of a new interpreter. If the attempt reaches its end, the fork prints a JSON list of the
statements that it sent. Then the worker prints the exit status of the fork, or the negative signal number.
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
    """The statements of writing transactions that this process sends. The process kills itself after number `kill_at`.

    `kill_at` counts all statements, or with `of_commits` only commits. The commits are the same in each run, but two
    parallel writers send the other statements in any order. Reads are not counted: their number depends on which
    parallel reader first sees a symbol.
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
                    # by the next iteration of the loop the statement is in the socket, so the server receives it
                    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)
            if query == "COMMIT;":
                writing.discard(self)
            return await send(self, query, *parameters, **options)

        return count

    for name in SENDING:
        setattr(asyncpg.Connection, name, counted(getattr(asyncpg.Connection, name)))
    return sent


async def attempt(dsn: str, job: JobName, token: int, base: int, kill_at: int | None, of_commits: bool) -> list[str]:
    """Make one attempt at the run, under the term with that token, and return the statements that were sent."""
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
