"""Containers of a task, run by podman in the task's network namespace as ECS's agent would run them."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from ops.local.containers import Container, Journal, Pace
from ops.local.definition import ContainerDefinition
from ops.local.processes import Process, running
from ops.rehearse.network import Pod
from ops.rehearse.programs import call

LABEL = "ops.rehearse"
"""Label of every container of a rehearsal."""

CERTIFICATES = "/certificates"
"""Folder in a container with the certificate of the rehearsal's authority."""

STARTED_WITHIN = 30.0
"""Maximum seconds from podman's start until the container's first process runs."""

_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=2000:2000"]
[engine]
cgroup_manager = "cgroupfs"
"""


def configuration(*, unified: bool) -> str:
    """Return the text of podman's containers.conf.

    It selects runc if some cgroups have version 1, since crun needs version 2.
    """
    return _CONFIGURATION if unified else f'{_CONFIGURATION}runtime = "runc"\n'


def options(container: ContainerDefinition, folder: Path) -> list[str]:
    """Return podman's options for the container's definition. `folder` holds `hosts` and `ca.crt`."""
    words = ["--no-hosts", "--dns=none", "--log-driver=none", f"--label={LABEL}"]
    words += [f"--volume={folder / 'hosts'}:/etc/hosts:ro", f"--volume={folder / 'ca.crt'}:{CERTIFICATES}/ca.crt:ro"]
    words += [f"--volume={mount.container_path}" for mount in container.mount_points]  # removed with the container
    if container.memory is not None:
        words += [f"--memory={container.memory}m", f"--memory-swap={container.memory}m"]
    if container.cpu:
        words += [f"--cpu-shares={container.cpu}"]
    if container.user is not None:
        words += [f"--user={container.user}"]
    if container.readonly_root_filesystem:
        words += ["--read-only", "--read-only-tmpfs=false"]
    if container.linux_parameters.init_process_enabled:
        words += ["--init"]
    capabilities = container.linux_parameters.capabilities
    words += [f"--cap-drop={each}" for each in capabilities.drop]
    return words + [f"--cap-add={each}" for each in capabilities.add]


class _Contained(Process):
    """podman's client, and the first process of the container that it started."""

    def __init__(self, client: Process, pidfile: Path) -> None:
        self._client = client
        self._pidfile = pidfile

    @property
    def pid(self) -> int:
        """The process id, on the machine, of the container's first process; before it runs, the client's id."""
        try:
            return int(self._pidfile.read_text())
        except (FileNotFoundError, ValueError):
            return self._client.pid

    async def started(self) -> None:
        """Wait until the container's first process runs, or podman's client has ended."""
        ended = asyncio.ensure_future(self._client.wait())
        try:
            async with asyncio.timeout(STARTED_WITHIN):
                while not ended.done() and not self._has_pid():  # noqa: ASYNC110 - another process writes the file
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self._client.kill()
        finally:
            ended.cancel()
            await asyncio.wait([ended])

    async def wait(self) -> int:
        """Wait for the container's end; returns its exit code."""
        return await self._client.wait()

    def terminate(self) -> None:
        """Send SIGTERM to the first process."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the first process. The kernel then ends the other processes of the container."""
        self._signal(signal.SIGKILL)

    def _has_pid(self) -> bool:
        return self.pid != self._client.pid

    def _signal(self, number: signal.Signals) -> None:
        if self._has_pid():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class PodmanContainer(Container):
    """One container of a task, in its pod.

    Args:
        image: the image to run.
        pod: the task's network.
        group: the task's cgroup.
        folder: folder of the rehearsal with `hosts`, `ca.crt` and the pid files.
    """

    def __init__(
        self,
        definition: ContainerDefinition,
        label: str,
        *,
        environment: Mapping[str, str],
        folder: Path,
        journal: Journal,
        pace: Pace,
        on_unhealthy: Callable[[], None],
        image: str,
        pod: Pod,
        group: str,
    ) -> None:
        super().__init__(
            definition,
            label,
            environment=environment,
            folder=folder,
            journal=journal,
            pace=pace,
            on_unhealthy=on_unhealthy,
        )
        self._image = image
        self._pod = pod
        self._group = group
        self._runs = 0

    @property
    def name(self) -> str:
        """The container's name in podman; each start has a new name."""
        return f"{self._pod.name}-{self.definition.name}-{self._runs}"

    def _main(self, output: Callable[[bytes], None]) -> AbstractAsyncContextManager[Process]:
        self._runs += 1
        return contained(
            self.name,
            self.definition,
            self.definition.command,
            image=self._image,
            pod=self._pod,
            group=self._group,
            environment=self.environment,
            folder=self.folder,
            output=output,
        )

    def _beside(self, argv: list[str], output: Callable[[bytes], None]) -> AbstractAsyncContextManager[Process]:
        command = ["podman", "exec", self.name, *argv]
        return running(command, environment=os.environ, folder=self.folder, output=output)


@asynccontextmanager
async def contained(
    name: str,
    definition: ContainerDefinition,
    command: Sequence[str],
    *,
    image: str,
    pod: Pod,
    group: str,
    environment: Mapping[str, str],
    folder: Path,
    output: Callable[[bytes], None],
) -> AsyncIterator[Process]:
    """Run a container during the block, and remove it at the end.

    Raises:
        OSError: podman cannot be started.
    """
    pidfile = folder / f"{name}.pid"
    variables = [f"--env={variable}" for variable in environment]  # without values, which `ps` would show
    entry = [f"--entrypoint={json.dumps(definition.entry_point)}"] if definition.entry_point else []
    words = ["--rm", f"--name={name}", f"--network=ns:{pod.path}", f"--cgroup-parent={group}", f"--pidfile={pidfile}"]
    line = ["podman", "run", *words, *options(definition, folder), *variables, *entry, image, *command]
    try:
        async with running(line, environment=os.environ | environment, folder=folder, output=output) as client:
            process = _Contained(client, pidfile)
            try:
                await process.started()
                yield process
            finally:
                process.kill()
                await call("podman", "rm", "--force", "--volumes", "--time=0", "--ignore", name, check=False)
    finally:
        pidfile.unlink(missing_ok=True)


async def run_once(
    definition: ContainerDefinition,
    command: Sequence[str],
    *,
    image: str,
    pod: Pod,
    group: str,
    environment: Mapping[str, str],
    folder: Path,
) -> tuple[int, str]:
    """Run a command in a new container, as a one-off task; returns its exit code and its output."""
    said: list[bytes] = []
    name = f"{pod.name}-{command[0]}"
    async with contained(
        name,
        definition,
        command,
        image=image,
        pod=pod,
        group=group,
        environment=environment,
        folder=folder,
        output=said.append,
    ) as process:
        code = await process.wait()
    return code, b"".join(said).decode(errors="replace")


async def containers() -> list[str]:
    """Return the ids of the containers of all rehearsals."""
    return (await call("podman", "ps", "--all", "--quiet", f"--filter=label={LABEL}")).split()


async def remove_containers() -> None:
    """Remove the containers that killed rehearsals left."""
    if left := await containers():
        await call("podman", "rm", "--force", "--volumes", "--time=0", *left)
