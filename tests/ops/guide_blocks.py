"""The shell blocks of a document, and checks of their AWS commands with botocore's models."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import botocore.loaders
import botocore.model
from botocore import xform_name

OF_THE_CLIENT = {"query", "output", "region", "cli-input-json", "max-items", "profile"}
"""Options of the aws program itself, which are not parameters of an operation."""
WITHOUT_MODEL = {
    ("ecr", "get-login-password"): {"none"},
    ("cloudformation", "deploy"): {"stack-name", "template-file", "capabilities", "parameter-overrides"},
    ("ecs", "wait"): {"cluster", "services", "tasks"},
}
"""Commands of the aws program that are not operations of the API, with the options that documents use.

`none` is a placeholder for a command without options.
"""

OF_COPILOT = {
    "app init": {"domain"},
    "env init": {"name", "profile", "import-cert-arns", "default-config"},
    "env deploy": {"name"},
    "env show": {"name", "resources"},
    "svc init": {"name", "svc-type", "dockerfile", "port"},
    "svc deploy": {"name", "env", "tag", "force"},
    "svc exec": {"name", "env", "container", "command"},
    "svc logs": {"name", "env", "since", "follow"},
    "svc show": {"name"},
    "svc status": {"name", "env"},
}
"""Copilot's commands and their options that documents use."""


@dataclass(frozen=True)
class Block:
    """A block of shell lines. `mark` is the word after `bash`, if there is one."""

    line: int
    mark: str
    text: str

    @property
    def wanted(self) -> list[str]:
        """Return the texts that the output must contain, in this order."""
        return re.findall(r"^# -> (.+)$", self.text, re.MULTILINE)


def blocks(document: str) -> Iterator[Block]:
    """Return each block that starts with three backticks and `bash`, without its indentation."""
    for found in re.finditer(r"^( *)```bash ?(\w*)\n(.*?)^\1```$", document, re.MULTILINE | re.DOTALL):
        indent, mark, text = found.groups()
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        yield Block(document[: found.start()].count("\n") + 1, mark, "\n".join(lines))


def aws_commands(text: str) -> Iterator[list[str]]:
    """Return the words of each `aws` command, including commands inside `$(...)`."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for found in re.finditer(r"(?<![\w/$])(?=aws ((?:[^\n\"'()|&]|\"[^\"]*\"|'[^']*')+))", joined):
        yield shlex.split(found[1])


def copilot_commands(text: str) -> Iterator[tuple[str, set[str]]]:
    """Return each `copilot` command, such as `svc deploy`, and its options."""
    for found in re.finditer(r"\bcopilot ((?:app|env|svc) [a-z]+)((?: [^\n`|;&]*)?)", text):
        yield found[1], set(re.findall(r" --([a-z-]+)", found[2]))


@cache
def service_model(name: str) -> botocore.model.ServiceModel:
    """Return botocore's model of a service, such as `ecs`."""
    return botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model(name, "service-2"))


def unknown_options(words: list[str]) -> set[str]:
    """Return the options of a command that its operation does not accept.

    Raises:
        KeyError: there is no such operation.
    """
    service, command = words[:2]
    given = {word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")}
    known: set[str] | dict[str, Any] = WITHOUT_MODEL.get((service, command), set())
    if not known:
        names = {xform_name(name, "-"): name for name in service_model(service).operation_names}
        shape = service_model(service).operation_model(names[command]).input_shape
        members = {} if shape is None else shape.members
        known = {xform_name(name, "-") for name in members} | {f"no-{xform_name(name, '-')}" for name in members}
    return given - OF_THE_CLIENT - set(known)
