"""The sizes that Fargate offers: `cpu` and `memory` of a task, as RegisterTaskDefinition accepts them."""

import re

GIB = 1024
SIZES = {
    256: (512, 1 * GIB, 2 * GIB),
    512: tuple(range(1 * GIB, 4 * GIB + 1, GIB)),
    1024: tuple(range(2 * GIB, 8 * GIB + 1, GIB)),
    2048: tuple(range(4 * GIB, 16 * GIB + 1, GIB)),
    4096: tuple(range(8 * GIB, 30 * GIB + 1, GIB)),
    8192: tuple(range(16 * GIB, 60 * GIB + 1, 4 * GIB)),
    16384: tuple(range(32 * GIB, 120 * GIB + 1, 8 * GIB)),
}
"""Allowed memory sizes in MiB, by CPU units (1024ths of a core)."""


def units(text: str, word: str) -> int:
    """Convert `512`, `0.5 vCPU` or `1 GB` to 1024ths; `word` is the unit.

    Raises:
        ValueError: the text has another form.
    """
    found = re.fullmatch(rf"(\d+)|(\d*\.?\d+) ?{word}", text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is not a whole number, or a number of {word}")
    return int(found[1]) if found[1] else round(float(found[2]) * 1024)


def check_size(cpu: int, memory: int) -> None:
    """Raise ValueError if Fargate does not offer the size; `cpu` in CPU units, `memory` in MiB."""
    if cpu not in SIZES:
        raise ValueError(f"cpu: Fargate has no tasks of {cpu} CPU units; it has {', '.join(map(str, SIZES))}")
    if memory not in SIZES[cpu]:
        offered = ", ".join(map(str, SIZES[cpu]))
        raise ValueError(f"memory: Fargate has no tasks of {cpu} CPU units with {memory} MiB; it has {offered}")
