"""The process that becomes COMMAND. It first waits until the watchdog has the id of this process's session.

Standard input is a pipe: one byte is the start signal, and the end of the pipe means that the wrapper has ended. The
first argument is the file descriptor of a pipe for the outcome. A `0` is written there immediately before COMMAND is
executed, followed by the error's number if COMMAND cannot be executed. The pipe ends when COMMAND begins. This program
runs with `python -I -S` and imports only the standard library.
"""

import os
import signal
import sys


def first_environment() -> dict[bytes, bytes]:
    """Return the environment with which this process was started.

    `os.environ` may differ: without a locale, the interpreter adds LC_CTYPE.
    """
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 - pathlib would be imported for it
        pairs = [entry.partition(b"=") for entry in file.read().split(b"\0")]
    return {name: value for name, equals, value in pairs if equals}


def main(report: int, command: list[str]) -> None:
    """Become COMMAND, with the environment of this process and /dev/null as its standard input."""
    os.set_inheritable(report, False)
    if os.read(0, 1) != b"1":
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and COMMAND would inherit that
        signal.signal(number, signal.SIG_DFL)
    os.write(report, b"0")
    try:
        os.execvpe(command[0], command, first_environment())  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(report, str(error.errno).encode())
    os._exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
