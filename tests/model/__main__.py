"""`python -m tests.model [CHECK ...]`: run checks of the model and print the results; see README.md in this folder."""

import sys

from tests.model.spin import SpinError, run
from tests.model.variants import BEYOND, BROKEN, CHECKS, RIGHT, Check

USAGE = """usage: python -m tests.model CHECK ...      run these; a single check also prints the steps to its violation
       python -m tests.model short|long     the runs of make test-slow, or of make model"""


def overview() -> str:
    """Return the usage and the names of all checks."""
    groups = (("holds", RIGHT), ("is violated", BROKEN), ("is violated, outside of the assumptions", BEYOND))
    parts = [USAGE]
    for title, checks in groups:
        parts += [f"\n{title}:", *(f"  {check.name:22} {check.about}" for check in checks)]
    return "\n".join(parts)


def chosen(names: list[str]) -> list[Check] | None:
    """Return the checks with these names; None if a name is unknown."""
    if names == ["long"]:
        return [check for check in RIGHT if check.long]
    if names == ["short"]:
        return [check for check in (*RIGHT, *BROKEN) if not check.long]
    return [CHECKS[name] for name in names] if all(name in CHECKS for name in names) else None


def main(names: list[str]) -> int:
    """Return the exit status: 0 if every result is as expected, 1 if not, 2 for a wrong name or without Spin."""
    checks = chosen(names)
    if not names or checks is None:
        print(overview(), file=sys.stderr)
        return 2
    surprises = 0
    for check in checks:
        print(f"{check.name}: {check.about}", flush=True)
        try:
            verdict = run(check)
        except SpinError as error:
            print(f"tests.model: {error}", file=sys.stderr)
            return 2
        if len(checks) == 1 or verdict.holds != check.holds:
            print("\n".join(verdict.story))
        surprises += verdict.holds != check.holds
        outcome = "holds" if verdict.holds else "violated"
        print(
            f"  {outcome}{'' if verdict.holds == check.holds else ', UNEXPECTED'}: {verdict.states:,} states,"
            f" depth {verdict.depth}, {verdict.megabytes:,.0f} MB, {verdict.seconds:.1f} s of a core",
            flush=True,
        )
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
