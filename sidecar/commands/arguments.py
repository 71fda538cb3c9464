"""The command line of the operator's commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runtime.escape import one_line

USAGE = """\
usage: python -m sidecar [COMMAND]

  (none)                 run the sidecar
  healthcheck            check whether the sidecar in this container is healthy
  status                 show what the sidecar in this task reports about its leases
  exec LEASE [--grace SECONDS] [--once] -- COMMAND [ARG...]
                         run COMMAND while this task leads the lease; asks the sidecar at SIDECAR_URL (docs/exec.md)
  leaders                show the holder of each lease, its remaining time, and the last token
  watch                  show these facts live until Ctrl-C; in a pipe or a file, one line for each change
  history LEASE          show the last terms, newest first: when they began, who led, how they ended
  step-down LEASE        let another task lead: the holder stops its work, then releases the lease; the command waits
                         for the next leader
  disable LEASE SECONDS [--reason TEXT]
                         let nobody lead for that time; work stops at once, or at the latest after LEASE_TTL
  enable LEASE           let tasks lead again
  fence LEASE            show the last token in Redis; if the lease is disabled, repair a fence that refuses every term
                         (--dry-run changes nothing; --above TOKEN: the next token is above TOKEN)

status, leaders and each command below leaders take --json: one JSON document (watch: one JSON object per line).
Settings come from the environment; docs/settings.md lists them.
Exit status: 0 success, 1 failure, 2 invalid arguments or settings; exec has its own (exec --help)."""


class UsageError(Exception):
    """An invalid command line; the text is one line that names the invalid word, or shows the command's usage."""


@dataclass(frozen=True, slots=True)
class Form:
    """The words that a command takes: positional words, and options, each with its value's name ('' for a switch)."""

    positional: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def usage(self) -> str:
        """The words as a person writes them."""
        options = [f"[{name} {value}]" if value else f"[{name}]" for name, value in self.options.items()]
        return " ".join([*self.positional, *options])


_JSON = {"--json": ""}

FORMS = {
    "healthcheck": Form(),
    "status": Form((), _JSON),
    "leaders": Form((), _JSON),
    "watch": Form((), _JSON),
    "history": Form(("LEASE",), _JSON),
    "step-down": Form(("LEASE",), _JSON),
    "disable": Form(("LEASE", "SECONDS"), {"--reason": "TEXT", **_JSON}),
    "enable": Form(("LEASE",), _JSON),
    "fence": Form(("LEASE",), {"--dry-run": "", "--above": "TOKEN", **_JSON}),
}
"""The commands; `exec` reads its words itself."""


@dataclass(frozen=True, slots=True)
class Words:
    """A command line: the command, the positional words, and the given options with their values ('' for a switch)."""

    command: str
    positional: tuple[str, ...]
    options: Mapping[str, str]

    @property
    def as_json(self) -> bool:
        """Whether the answer is for a program."""
        return "--json" in self.options


def parse(words: Sequence[str]) -> Words:
    """Read a command line, which has at least one word. Options may stand anywhere after the command.

    Raises:
        UsageError: there is no such command or option, or there are too few or too many words.
    """
    command, *rest = words
    form = FORMS.get(command)
    if form is None:
        raise UsageError(f"no command {one_line(' '.join(words))!r}; --help lists the commands and their arguments")
    usage = f"usage: {command} {form.usage}".rstrip()
    positional, options = [], {}
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            positional.append(word)
        elif name not in form.options or (equals and not form.options[name]):
            *others, last = [f"{option} {text}".rstrip() for option, text in form.options.items()] or ["no option"]
            takes = f"{', '.join(others)} and {last}" if others else last
            raise UsageError(f"{command} takes {takes}, not {one_line(word)!r}")
        elif form.options[name] and not equals:
            if not rest:
                raise UsageError(usage)
            options[name] = rest.pop(0)
        else:
            options[name] = value
    if len(positional) != len(form.positional):
        raise UsageError(usage)
    return Words(command, tuple(positional), options)
