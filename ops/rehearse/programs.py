"""Short runs of the machine's programs: `ip`, `iptables`, `podman`."""

import asyncio

LONGEST = 120.0
"""Limit of a run, in seconds."""


class RehearsalError(Exception):
    """The rehearsal cannot go on; the text is one line for the user."""


async def call(*command: str, check: bool = True) -> str:
    """Run a program to its end; returns its standard output.

    Raises:
        RehearsalError: the program cannot be started, takes too long, or (with `check`) fails.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for the rehearsal alone
        )
    except OSError as error:
        raise RehearsalError(f"{command[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(LONGEST):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise RehearsalError(f"`{' '.join(command[:3])}` took longer than {LONGEST:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if check and process.returncode != 0:
        said = (errors or output).decode(errors="replace").strip().splitlines() or ["it printed nothing"]
        raise RehearsalError(f"`{' '.join(command[:3])}` ended with status {process.returncode}: {said[-1]}")
    return output.decode(errors="replace")
