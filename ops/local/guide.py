"""The text that the user sees once everything runs: addresses, and commands to paste into another terminal."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio.connection import AbstractConnection, Connection, UnixDomainSocketConnection

from service.commands.samples import SAMPLES
from sidecar.settings import RedisAddress

INDENTED = " | python3 -m json.tool"
"""Shell command that formats an answer, which otherwise is one long line without a line break."""


@dataclass(frozen=True)
class TaskView:
    """The data of a task that the user needs: label, addresses (`127.0.0.1:8080`), process ids of the containers."""

    label: str
    api: str
    internal: str
    control: str
    metrics: str
    pids: Mapping[str, int]


def page(tasks: Sequence[TaskView]) -> list[str]:
    """Return the address of the operators' page of the first task."""
    return [f"  http://{tasks[0].internal}/   the operators' page: leaders, last terms, jobs and problems"]


def addresses(tasks: Sequence[TaskView]) -> list[str]:
    """Return one line for each task."""
    return [
        f"  {task.label:<7}page http://{task.internal}/   API http://{task.api}   sidecar http://{task.control}"
        f"   metrics http://{task.metrics}/metrics"
        f" http://{task.internal}/metrics"
        f"   pids {', '.join(f'{name} {pid}' for name, pid in task.pids.items())}"
        for task in tasks
    ]


def leaders(leads: Mapping[str, str | None]) -> list[str]:
    """Return one line for each lease."""
    return [f"  {name:<22}{task or 'none of these tasks yet'}" for name, task in leads.items()]


def look(tasks: Sequence[TaskView], portfolio: str, api: Mapping[str, str], folder: Path) -> list[str]:
    """Return commands that show the state of the run.

    Args:
        tasks: the tasks.
        portfolio: a sample portfolio.
        api: the environment of a task's API.
        folder: the checkout.
    """
    first, last = tasks[0], tasks[-1]
    token, curl = _access(portfolio, api, folder)
    history = f"'http://{first.api}/portfolios/{portfolio}/history?limit=3'"
    sidecar_s = "the sidecar's view (a request to /is-leader would join the election)"
    return _explained(
        [
            *token,
            (f"{curl} http://{first.api}/portfolios/{portfolio}/live{INDENTED}", "a live value"),
            (
                f"{curl} -N http://{last.api}/portfolios/{portfolio}/stream",
                "the values as they change; every task serves them",
            ),
            (f"{curl} {history}{INDENTED}", "the closing values of the last days"),
            (f"curl -s http://{first.internal}/background/status{INDENTED}", "the leaders, and the last and next runs"),
            (f"curl -s http://{first.control}/status{INDENTED}", sidecar_s),
            (
                f"curl -s http://{first.metrics}/metrics http://{first.internal}/metrics",
                "the metrics of the sidecar and of the API",
            ),
        ]
    )


def _access(portfolio: str, api: Mapping[str, str], folder: Path) -> tuple[list[tuple[str, str]], str]:
    """Return the lines that set TOKEN, an access token, and the curl command line of a user's request.

    The shared secret is not shown, so the command for the token needs it in the environment.
    """
    if api.get("AUTH") == "off":
        return [], "curl -s"
    curl = 'curl -s -H "Authorization: Bearer $TOKEN"'
    owner = next((str(user) for sample, (_, user, _) in SAMPLES.items() if str(sample) == portfolio), "USER_ID")
    if "SUPABASE_JWT_SECRET" not in api:
        what = f"AUTH=supabase: the next requests need an access token of the user {owner}, who owns the portfolio"
        return [("TOKEN=ACCESS_TOKEN", what)], curl
    url = shlex.quote(api["SUPABASE_URL"])
    command = f"SUPABASE_URL={url} {shlex.quote(sys.executable)} -m service token --user {owner}"
    what = "a token of the portfolio's owner; in another terminal, set SUPABASE_JWT_SECRET to the shared secret first"
    return [(f'TOKEN="$(cd {shlex.quote(str(folder))} && {command})"', what)], curl


def break_it(
    tasks: Sequence[TaskView], leads: Mapping[str, str | None], keys: Mapping[str, str], redis: str | None
) -> list[str]:
    """Return commands that disturb the election; `redis` is the redis-cli command line, or None without redis-cli."""
    lease, leader = next(((lease, task) for lease, task in leads.items() if task), ("", tasks[0].label))
    task = next((task for task in tasks if task.label == leader), tasks[0])
    whose = f"{task.label}, which leads {lease}" if lease else task.label
    others = "another task leads within the grant time, and " if len(tasks) > 1 else ""
    kills = (
        ("sidecar", f"the sidecar of {whose}: it restarts within its task and resumes its term"),
        ("api", f"the API of {task.label}: {others}a new task starts"),
    )
    lines = [(f"kill -9 {task.pids[name]}", what) for name, what in kills if name in task.pids]
    if redis is not None:
        key = keys.get(lease) or next(iter(keys.values()))
        lines += [
            (f"{redis} SET {key} DISABLED EX 20", "disable the lease: its work stops, and nobody leads for 20 s"),
            (f"{redis} DEL {key}", "delete the lease: a task acquires it again at once"),
        ]
    return _explained(lines)


def by_hand(api: Mapping[str, str], folder: Path, *, ours: bool) -> list[str]:
    """Return a command that runs a job while the tasks run, with the API's settings.

    The command first changes to `folder`, the checkout. It has the database's address only if the database is `ours`: a
    caller's address is already in the caller's environment, and is not shown, because it can contain a password.
    """
    names = ("MARKET_CALENDAR", "PRICE_SOURCE", *(("DATABASE_URL",) if ours else ()))
    settings = [f"{name}={shlex.quote(api[name])}" for name in names if name in api]
    line = " ".join([*settings, shlex.quote(sys.executable), "-m service run snapshot --dry-run"])
    line = f"(cd {shlex.quote(str(folder))} && {line})"
    return _explained(
        [(line, "run a daily job by hand; python -m service --help lists the other jobs and the imports")]
    )


def shell_environment(
    api: Mapping[str, str], sidecar: Mapping[str, str], redis: Mapping[str, str], *, ours: bool
) -> str:
    """Return shell lines that set the environment for the programs' commands while the tasks run.

    Args:
        api: the environment of a task's API.
        sidecar: the environment of its sidecar.
        redis: the address of our own Redis; empty for the caller's Redis, whose address can contain a password.
        ours: true if we started Postgres.
    """
    of_api = ("MARKET_CALENDAR", "PRICE_SOURCE", "SIDECAR_URL", "LOG_FORMAT", *(("DATABASE_URL",) if ours else ()))
    found = {name: api[name] for name in of_api if name in api}
    variables = {**found, "CONTROL_BIND": sidecar["CONTROL_BIND"], **redis}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def redis_cli(to: AbstractConnection, address: RedisAddress) -> str | None:
    """Return a redis-cli command line for the server of a connection; None if redis-cli is not installed.

    redis-cli prompts for a password, so the line contains none. The wheel's program is preferred to the one on the
    path, except for TLS, which the wheel's program does not support.
    """
    tls = address.tls
    beside = Path(sys.executable).parent / "redis-cli"
    found = str(beside) if beside.exists() and tls is None else shutil.which("redis-cli")
    if found is None:
        return None
    words = [found]
    if isinstance(to, UnixDomainSocketConnection):
        words += ["-s", to.path]
    elif isinstance(to, Connection):
        words += ["-h", to.host, "-p", str(to.port)]
    if tls is not None:
        files = (("--cacert", tls.ca), ("--cert", tls.certificate), ("--key", tls.key_file))
        words += ["--tls", *(word for option, file in files if file is not None for word in (option, file.path))]
        words += [] if tls.verify else ["--insecure"]
    words += ["-n", str(to.db)] if to.db else []
    words += ["--user", username] if (username := to.username or address.username) else []
    words += ["--askpass"] if to.password or address.password_file else []
    return shlex.join(words)


def _explained(lines: Sequence[tuple[str, str]]) -> list[str]:
    return [text for line, what in lines for text in (f"  # {what}", f"  {line}")]
