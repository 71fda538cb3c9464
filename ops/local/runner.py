"""One run: starts servers, applies migrations, adds samples, then runs the tasks until the run must stop."""

import asyncio
import re
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path

from ops.local import guide, orphans
from ops.local.addresses import check_free, listeners, shifted
from ops.local.backends import Backends
from ops.local.console import Console
from ops.local.containers import first_of
from ops.local.definition import TaskDefinition
from ops.local.environment import container_environment
from ops.local.leaders import Board, Watch
from ops.local.metadata import ContainerView, MetadataServer, new_task_id, view
from ops.local.processes import running
from ops.local.programs import API, SIDECAR
from ops.local.settings import PORT_STEP, RunSettings, UsageError, unwritable
from ops.local.slots import Slot
from ops.local.tasks import Task, describe
from service.settings import SettingsError as ServiceSettingsError
from service.settings import read_settings as read_service_settings
from sidecar.redis.connection import Connector
from sidecar.settings import SettingsError
from sidecar.settings import read as read_sidecar_settings

LEAD_WITHIN = 5.0
"""Longest time, in seconds from the start of the tasks, for which the guide waits for a leader of each lease."""

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Runner:
    """Runs the tasks of a definition on this machine, and receives the events of their containers.

    Args:
        definition: the definition with its defaults (`spelled_out`).
        settings: the settings of the run.
        caller: the environment of the caller.
        root: the checkout; the containers run in this folder.
        console: the screen.
        stopping: the run stops when this event is set.
    """

    def __init__(
        self,
        definition: TaskDefinition,
        settings: RunSettings,
        caller: Mapping[str, str],
        root: Path,
        console: Console,
        stopping: asyncio.Event,
    ) -> None:
        self._definition = definition
        self._settings = settings
        self._caller = caller
        self._root = root
        self._console = console
        self._stopping = stopping
        self._backends = Backends(settings, caller, console)
        self._metadata = MetadataServer(definition.family, self._views)
        self._shifts = {
            f"task{number + 1}": settings.port_offset + PORT_STEP * number for number in range(settings.tasks)
        }
        self._board = Board(self._report_leader)
        self._watch = Watch(
            {label: self._address(label, SIDECAR, "CONTROL_BIND") for label in self._shifts}, self._board
        )
        self._slots: list[Slot] = []
        self._portfolio = ""

    def check(self) -> None:
        """Raise UsageError if a port that a task needs is not free, or a log file cannot be written."""
        users: dict[int, str] = {}
        for label, shift in self._shifts.items():
            for container in self._definition.container_definitions:
                for variable, port in listeners(shifted(container, shift)).items():
                    user = f"{label}/{container.name} ({variable})"
                    if port in users:
                        apart = f"the ports of each further task are {PORT_STEP} higher here"
                        raise UsageError(f"{users[port]} and {user} both need port {port} ({apart})")
                    users[port] = user
                    check_free(port, user)
        containers = [container.name for container in self._definition.container_definitions]
        try:
            self._console.open_logs(
                ["migrate", "sample", *(f"{label}/{name}" for label in self._shifts for name in containers)]
            )
        except OSError as error:
            raise unwritable(self._settings.folder, error) from error

    async def run(self) -> None:
        """Run until `stopping` is set and everything has stopped in order.

        Raises:
            UsageError: the start failed; nothing is left running.
        """
        try:
            async with self._metadata:
                if not await _unless(self._stopping, self._prepare()):
                    return
                self._slots = [Slot(label, self._new_task, self._console) for label in self._shifts]
                async with asyncio.TaskGroup() as group:
                    beside = [
                        group.create_task(self._backends.keep(self._stopping)),
                        group.create_task(self._watch.run()),
                        group.create_task(self._greet()),
                        group.create_task(orphans.keep_reaping()),
                    ]
                    await asyncio.wait([group.create_task(slot.keep(self._stopping)) for slot in self._slots])
                    for task in beside:
                        task.cancel()
        finally:
            await self._backends.stop()
            self._leave_nothing()

    def kill(self) -> None:
        """Kill everything at once."""
        for slot in self._slots:
            slot.task.kill()
        self._backends.kill()

    def event(self, who: str, text: str) -> None:
        """Print an event of a container or a task."""
        self._console.event(who, text)

    def output(self, who: str, chunk: bytes) -> None:
        """Log a container's output. A sidecar logs when the lead changes, so poll it at once."""
        self._console.output(who, chunk)
        task, _, container = who.partition("/")
        if container == SIDECAR:
            self._watch.nudge(task)

    def exited(self, task: str, container: str) -> None:
        """Record that a container has exited. Only the end of a sidecar ends the task's lead."""
        if container == SIDECAR:
            self._board.gone(task, time.monotonic())

    async def _prepare(self) -> None:
        self._backends.find()
        try:
            checked = read_sidecar_settings(self._environment(self._first, SIDECAR))
            self._redis, self._redis_address = Connector(checked.redis, checked.kind)(), checked.redis
        except SettingsError as error:
            raise UsageError(f"container {SIDECAR}: {error}") from error
        try:
            read_service_settings(self._environment(self._first, API))
        except ServiceSettingsError as error:
            raise UsageError(f"container {API}: {error}") from error
        await self._backends.start(checked)
        self._keys = checked.keys
        await self._backends.vouch_for_redis(list(self._keys.values()))
        self._write_shell_environment()
        began = time.monotonic()
        applied = set(re.findall(r"\d{14}_\w+\.sql", await self._command("migrate")))
        self._console.step("Migrations", f"{len(applied) or 'none'} applied, {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        samples = _UUID.findall(await self._command("sample"))
        self._portfolio = samples[0] if samples else "PORTFOLIO_ID"
        self._console.step("Samples", f"{len(samples)} portfolios, {time.monotonic() - began:.1f} s")

    def _write_shell_environment(self) -> None:
        text = guide.shell_environment(
            self._environment(self._first, API),
            self._environment(self._first, SIDECAR),
            self._backends.own_redis,
            ours=self._settings.database_url is None,
        )
        path = self._settings.folder / "environment"
        try:
            path.write_text(text)
        except OSError as error:
            raise unwritable(path, error) from error

    async def _command(self, name: str) -> str:
        """Run a command of the API's program, such as `migrate`, to its end; returns its output."""
        said: list[bytes] = []
        argv = [*self._definition.container(API).argv, name]
        environment = self._environment(self._first, API)
        try:
            async with running(argv, environment=environment, folder=self._root, output=said.append) as process:
                code = await process.wait()
        except OSError as error:
            raise UsageError(f"{' '.join(argv)} cannot be started: {error.strerror}") from error
        text = b"".join(said).decode(errors="replace")
        self._console.log(name, text.encode())
        if code != 0:
            last = (text.strip().splitlines() or [f"it exited with {describe(code)}"])[-1]
            raise UsageError(f"{' '.join(argv)} failed: {last} (whole output: {self._console.log_path(name)})")
        return text

    async def _greet(self) -> None:
        """Print addresses and commands once the tasks are healthy.

        Until `LEAD_WITHIN` is over, this also waits for a leader of each lease.
        """
        began = time.monotonic()
        for slot in self._slots:
            await first_of(slot.steady, self._stopping)
        if not self._stopping.is_set():
            self._console.step("Tasks", f"{len(self._slots)} healthy, {time.monotonic() - began:.1f} s")
        led_by = began + LEAD_WITHIN
        while time.monotonic() < led_by and not all(self._leads.values()):
            await first_of(self._stopping, timeout=0.05)
        if self._stopping.is_set():
            return
        tasks = [self._task_view(slot) for slot in self._slots]
        api = self._environment(self._first, API)
        cli = guide.redis_cli(self._redis, self._redis_address)
        own_database = self._settings.database_url is None
        for title, lines in (
            ("Open in a browser", guide.page(tasks)),
            ("Tasks", guide.addresses(tasks)),
            ("Leaders", guide.leaders(self._leads)),
            ("Look", guide.look(tasks, self._portfolio, api, self._root)),
            ("By hand", guide.by_hand(api, self._root, ours=own_database)),
            ("Break", guide.break_it(tasks, self._leads, self._keys, cli)),
            ("What happens", []),
        ):
            self._console.say()
            self._console.say(title, tone="title")
            for line in lines:
                self._console.say(line, tone="dim" if line.lstrip().startswith("#") else "")

    @property
    def _leads(self) -> dict[str, str | None]:
        return {name: self._board.leaders.get(name) for name in self._keys}

    @property
    def _first(self) -> str:
        return next(iter(self._shifts))

    def _environment(self, label: str, container: str) -> dict[str, str]:
        return container_environment(
            self._definition.container(container),
            shift=self._shifts[label],
            caller=self._caller,
            backends=self._backends.variables,
        )

    def _address(self, label: str, container: str, variable: str) -> str:
        return shifted(self._definition.container(container), self._shifts[label])[variable]

    def _new_task(self, label: str) -> Task:
        task_id = new_task_id()
        environments = {
            container.name: self._environment(label, container.name)
            | {"ECS_CONTAINER_METADATA_URI_V4": self._metadata.uri(task_id, container.name)}
            for container in self._definition.container_definitions
        }
        return Task(
            self._definition,
            label,
            task_id,
            environments=environments,
            folder=self._root,
            journal=self,
            exited=self.exited,
        )

    def _views(self, task_id: str) -> dict[str, ContainerView] | None:
        for slot in self._slots:
            if slot.task.task_id == task_id:
                return {name: view(container) for name, container in slot.task.containers.items()}
        return None

    def _task_view(self, slot: Slot) -> guide.TaskView:
        return guide.TaskView(
            label=slot.label,
            api=self._address(slot.label, API, "API_BIND"),
            internal=self._address(slot.label, API, "INTERNAL_BIND"),
            control=self._address(slot.label, SIDECAR, "CONTROL_BIND"),
            metrics=self._address(slot.label, SIDECAR, "METRICS_BIND"),
            pids=slot.task.pids,
        )

    def _report_leader(self, lease: str, text: str, new: bool) -> None:
        if new or not self._stopping.is_set():
            self._console.event(lease, text, tone="leader" if new else "warning")

    def _leave_nothing(self) -> None:
        for left in orphans.kill():
            self._console.event("run", f"{left} was left over and has been killed", tone="error")


async def _unless(stopping: asyncio.Event, work: Coroutine[object, object, None]) -> bool:
    """Do the work; if `stopping` is set first, cancel the work and return False."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if task.cancelled():
        return False
    await task
    return True
