"""The table of a rehearsal with its verdict."""

from collections.abc import Sequence

from ops.rehearse.measure import Row

HEADINGS = "event", "requests", "failed", "broken streams", "no leader", "overlap", "healthy after", "verdict"


def table(rows: Sequence[Row]) -> str:
    """Return a row for each event, then the problems."""
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(_aligned(text, width, column) for column, (text, width) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    wrong = [f"  {row.name}: {text}" for row in rows for text in row.wrong]
    verdict = "VERDICT: every row is as promised." if not wrong else f"VERDICT: {len(wrong)} FAULTS"
    return "\n".join([*(line.rstrip() for line in lines), "", verdict, *wrong])


def _cells(row: Row) -> tuple[str, ...]:
    healthy = "never" if row.healthy_after is None else f"{row.healthy_after:.1f} s"
    verdict = "FAULT" if row.wrong else "ok"
    return (
        row.name,
        str(row.requests),
        str(row.failed),
        str(row.broken),
        f"{row.leaderless:.1f} s",
        f"{row.overlap:.3f} s" if row.overlap else "0",
        healthy,
        verdict,
    )


def _aligned(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column in (0, len(HEADINGS) - 1) else text.rjust(width)
