"""The table of sizes, in Markdown."""

from collections.abc import Sequence

from ops.local.fargate import SIZES
from ops.sizes.measure import Size
from service.api.stream_admission import REFUSE_ABOVE

HEADINGS = (
    "portfolios", "first values", "a tick", "EOD", "API, jobs", "API, ticks", "API, ticks and streams", "sidecar",
    "API's memory", "task",
)  # fmt: skip


def table(sizes: Sequence[Size], cpu: int) -> str:
    """Return a row for each number of portfolios; `cpu` of the task is in 1024ths of a core."""
    rows = [HEADINGS, ("---:",) * len(HEADINGS), *(_cells(size, cpu) for size in sizes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def needed(size: Size) -> int:
    """Return the lowest memory limit of the API, in MiB, at which it accepts these streams; a multiple of 64."""
    peak = max(size.beginning["api"].memory, size.streaming["api"].memory, size.steady["api"].memory)
    return -(-round(peak / REFUSE_ABOVE) // 64) * 64


def smallest_task(api: int, sidecar: int, cpu: int) -> int | None:
    """Return the smallest memory, in MiB, of a Fargate task with that `cpu` for both containers; None if none fits."""
    return next((memory for memory in SIZES[cpu] if memory >= api + sidecar), None)


def _cells(size: Size, cpu: int) -> tuple[str, ...]:
    beginning, steady, streaming = size.beginning, size.steady, size.streaming
    sidecar = max(each["sidecar"].memory for each in (beginning, steady, streaming))
    api = needed(size)
    task = smallest_task(api, 128, cpu)
    return (
        f"{size.portfolios:,}",
        f"{size.first_tick:.0f} s",
        f"{size.tick:.2f} s",
        f"{size.eod:.1f} s",
        f"{beginning['api'].memory:.0f} MiB",
        f"{steady['api'].memory:.0f} MiB, {steady['api'].processor:.1f} %",
        f"{streaming['api'].memory:.0f} MiB, {streaming['api'].processor:.1f} %",
        f"{sidecar:.0f} MiB, {streaming['sidecar'].processor:.1f} %",
        f"{api} MiB",
        f"{task} MiB" if task is not None else "more than Fargate has",
    )
