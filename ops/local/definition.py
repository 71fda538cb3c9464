"""Reads and checks the parts of an ECS task definition that a run on one machine needs; starts nothing.

The file is the input of ECS's RegisterTaskDefinition. Every field that is used here is checked, including ECS's own
ranges. A `DefinitionError` is one line that names the field. Times are in seconds.
"""

import json
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from ops.local.fargate import check_size, units

Capability = Literal[
    "ALL", "AUDIT_CONTROL", "AUDIT_WRITE", "BLOCK_SUSPEND", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER",
    "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD",
    "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "SYSLOG", "WAKE_ALARM",
]  # fmt: skip
Condition = Literal["START", "COMPLETE", "SUCCESS", "HEALTHY"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,255}$")]


def _passed_to_programs(text: str) -> str:
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("contains a NUL or half of a surrogate pair, which no program can receive")
    return text


def _without_equals(name: str) -> str:
    if "=" in name:
        raise ValueError("contains '=', which the name of a variable cannot contain")
    return name


Text = Annotated[str, AfterValidator(_passed_to_programs)]
VariableName = Annotated[Text, Field(min_length=1), AfterValidator(_without_equals)]


class DefinitionError(Exception):
    """The task definition cannot be used; the text is one line that names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, strict=True, extra="ignore")


class Dependency(_Part):
    """One entry of `dependsOn`: the condition that another container must reach before this one starts."""

    container_name: Name
    condition: Condition


class HealthCheck(_Part):
    """`healthCheck`: a command that exits 0 while the container is healthy."""

    command: list[Text] = Field(min_length=2)
    interval: int = Field(default=30, ge=5, le=300)
    timeout: int = Field(default=5, ge=2, le=60)
    retries: int = Field(default=3, ge=1, le=10)
    start_period: int = Field(default=0, ge=0, le=300)

    @field_validator("command")
    @classmethod
    def _known_form(cls, command: list[str]) -> list[str]:
        if command[0] not in ("CMD", "CMD-SHELL"):
            raise ValueError(f"begins with {command[0]!r}, not with CMD or CMD-SHELL")
        return command

    @property
    def argv(self) -> list[str]:
        """The command line to run."""
        kind, *words = self.command
        return words if kind == "CMD" else ["/bin/sh", "-c", *words]


class RestartPolicy(_Part):
    """`restartPolicy`: a container that exits is restarted within its task."""

    enabled: bool
    ignored_exit_codes: list[int] = Field(default_factory=list, max_length=50)
    restart_attempt_period: int = Field(default=300, ge=60, le=1800)


class Variable(_Part):
    """One entry of `environment`."""

    name: VariableName
    value: Text


class Secret(_Part):
    """One entry of `secrets`: a variable whose value ECS injects from `valueFrom`."""

    name: VariableName
    value_from: str


class Capabilities(_Part):
    """`capabilities`: the Linux capabilities that a container adds to the engine's default or drops from it."""

    add: list[Capability] = Field(default_factory=list)
    drop: list[Capability] = Field(default_factory=list)


class LinuxParameters(_Part):
    """`linuxParameters`: an init process, and capabilities."""

    init_process_enabled: bool = False
    capabilities: Capabilities = Field(default_factory=Capabilities)


class MountPoint(_Part):
    """One entry of `mountPoints`: a volume of the task, and its path in the container."""

    source_volume: str
    container_path: str


class Volume(_Part):
    """One entry of `volumes`."""

    name: str


class ContainerDefinition(_Part):
    """One container of the task; `memory` in MiB, `cpu` in 1024ths of a core."""

    name: Name
    image: str
    essential: bool = True
    cpu: int = Field(default=0, ge=0)
    memory: int | None = Field(default=None, ge=4)
    user: str | None = None
    readonly_root_filesystem: bool = False
    linux_parameters: LinuxParameters = Field(default_factory=LinuxParameters)
    mount_points: list[MountPoint] = Field(default_factory=list)
    entry_point: list[Text] = Field(default_factory=list)
    command: list[Text] = Field(default_factory=list)
    environment: list[Variable] = Field(default_factory=list)
    secrets: list[Secret] = Field(default_factory=list)
    depends_on: list[Dependency] = Field(default_factory=list)
    health_check: HealthCheck | None = None
    restart_policy: RestartPolicy | None = None
    start_timeout: int = Field(default=180, ge=2, le=180)
    stop_timeout: int = Field(default=30, ge=2, le=120)

    @model_validator(mode="after")
    def _can_be_run_or_left_out(self) -> Self:
        if not self.argv and self.essential:
            raise ValueError("has neither entryPoint nor command; the image's own command is not read here")
        return self

    @property
    def argv(self) -> list[str]:
        """The command line to run; empty if only the image defines a command, since images are not read here."""
        return [*self.entry_point, *self.command]

    @property
    def variables(self) -> Mapping[str, str]:
        """`environment` by name."""
        return {variable.name: variable.value for variable in self.environment}


class TaskDefinition(_Part):
    """The containers of a task and their order by `dependsOn`."""

    family: Name
    requires_compatibilities: list[str] = Field(default_factory=list)
    cpu: str | None = None
    memory: str | None = None
    volumes: list[Volume] = Field(default_factory=list)
    container_definitions: list[ContainerDefinition] = Field(min_length=1, max_length=10)

    @property
    def cpu_units(self) -> int | None:
        """The task's `cpu` in 1024ths of a core; None if the task has no limit."""
        return None if self.cpu is None else units(self.cpu, "vCPU")

    @model_validator(mode="after")
    def _volumes_exist(self) -> Self:
        names = {volume.name for volume in self.volumes}
        for container in self.container_definitions:
            for mount in container.mount_points:
                if mount.source_volume not in names:
                    raise ValueError(f"{container.name} mounts {mount.source_volume}, which is not in volumes")
        return self

    @model_validator(mode="after")
    def _containers_fit(self) -> Self:
        cpu, memory = self.cpu_units, None if self.memory is None else units(self.memory, "GB")
        if "FARGATE" in self.requires_compatibilities:
            if cpu is None or memory is None:
                raise ValueError(f"{'cpu' if cpu is None else 'memory'}: missing; Fargate needs it")
            check_size(cpu, memory)
            for container in self.container_definitions:
                if refused := set(container.linux_parameters.capabilities.add) - {"SYS_PTRACE"}:
                    raise ValueError(
                        f"{container.name} adds {min(refused)}; Fargate lets a container add SYS_PTRACE only"
                    )
        needed_cpu = sum(container.cpu for container in self.container_definitions)
        if cpu is not None and needed_cpu > cpu:
            raise ValueError(f"cpu: the containers have {needed_cpu} CPU units, but the task has {cpu}")
        needed = sum(container.memory or 0 for container in self.container_definitions)
        if memory is not None and needed > memory:
            raise ValueError(f"memory: the containers have {needed} MiB, but the task has {memory}")
        return self

    @model_validator(mode="after")
    def _dependencies_can_be_met(self) -> Self:
        containers = {container.name: container for container in self.container_definitions}
        if len(containers) != len(self.container_definitions):
            raise ValueError("two containers have the same name")
        if not any(container.essential for container in containers.values()):
            raise ValueError("no container is essential")
        for container in containers.values():
            for dependency in container.depends_on:
                target = containers.get(dependency.container_name)
                if target is None:
                    raise ValueError(f"{container.name} dependsOn {dependency.container_name}, which does not exist")
                if not target.argv:
                    raise ValueError(
                        f"{container.name} dependsOn {target.name}, which has neither entryPoint nor command;"
                        " the image's own command is not read here"
                    )
                if dependency.condition == "HEALTHY" and target.health_check is None:
                    raise ValueError(f"{container.name} dependsOn {target.name} HEALTHY, which has no healthCheck")
                if dependency.condition in ("COMPLETE", "SUCCESS") and target.essential:
                    raise ValueError(f"{container.name} waits for the end of {target.name}, which is essential")
        edges = {
            name: [entry.container_name for entry in container.depends_on] for name, container in containers.items()
        }
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            raise ValueError(f"dependsOn has a cycle: {' -> '.join(error.args[1])}") from error
        return self

    @property
    def left_out(self) -> list[str]:
        """The names of the containers without a command in the definition; none of them is essential."""
        return [container.name for container in self.container_definitions if not container.argv]

    def container(self, name: str) -> ContainerDefinition:
        """The container with that name; KeyError for an unknown name."""
        for container in self.container_definitions:
            if container.name == name:
                return container
        raise KeyError(name)

    def dependents(self, name: str) -> list[str]:
        """The containers that declare `dependsOn` on this one: they stop before it does."""
        return [
            container.name
            for container in self.container_definitions
            if any(entry.container_name == name for entry in container.depends_on)
        ]


def parse(document: object, source: str = "task definition") -> TaskDefinition:
    """Check a decoded task definition; DefinitionError names `source` and the invalid field."""
    try:
        return TaskDefinition.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = _path(document, first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise DefinitionError(f"{source}: {field + ': ' if field else ''}{reason}") from error


def read(path: Path) -> TaskDefinition:
    """Read and check the file; DefinitionError if it cannot be read or is invalid."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DefinitionError(f"{path.name}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DefinitionError(f"{path.name}: not JSON: {error}") from error
    return parse(document, path.name)


def _path(document: object, location: tuple[int | str, ...]) -> str:
    """`containerDefinitions[api].stopTimeout`: an entry with a name is shown by its name, not by its index."""
    text, here = "", document
    for part in location:
        if isinstance(part, int):
            here = here[part] if isinstance(here, list) and part < len(here) else None
            name = here.get("name") if isinstance(here, dict) else None
            text += f"[{name if isinstance(name, str) and name.isprintable() else part}]"
        else:
            here = here.get(part) if isinstance(here, dict) else None
            text += f".{part}" if text else part
    return text
