"""The summary of a run as a table."""

from collections.abc import Sequence

from tests.simulation.run import Total

NETWORK_EVENTS = ("request lost", "request doubled", "reply lost", "late request")


def table(total: Total) -> str:
    """Return the table; the same seed gives the same table."""
    lines = [
        f"{'simulated hours':34}{total.hours:>14,.0f}",
        f"{'  of them with a ttl of':34}"
        + ", ".join(f"{ttl:g} s: {hours:,.0f}" for ttl, hours in sorted(total.hours_of.items())),
        f"{'lifetimes of a lease (ttls)':34}{total.lifetimes:>14,.0f}",
        f"{'worlds':34}{total.worlds:>14,}",
        f"{'rounds of election loops':34}{total.rounds:>14,}",
        f"{'terms in which a client led':34}{total.terms:>14,}",
        f"{'writes accepted / refused':34}{total.writes:>14,} / {total.refused:,}",
        "",
        f"{'faults':34}{sum(total.faults[kind] for kind in total.faults if kind not in NETWORK_EVENTS):>14,}",
    ]
    lines += [
        f"  {kind:32}{count:>14,}" for kind, count in sorted(total.faults.items(), key=lambda item: (-item[1], item[0]))
    ]
    lines += [
        "",
        f"{'undisturbed, ttl up to 30 s, in ms':34}{'count':>14}{'median':>12}{'p99':>12}{'worst':>12}",
        _percentiles("from resign to next belief", total.hand_over),
        _percentiles("  the same without a watch", total.unwatched),
        _percentiles("from a lost task's expiry", total.takeover),
        _percentiles("from a dead client's last grant", total.silence),
        "",
        f"{'violations':34}{len(total.violations):>14,}",
        f"{'fingerprint':34}{total.digest:>16}",
    ]
    return "\n".join(lines)


def _percentiles(name: str, values: Sequence[float]) -> str:
    if not values:
        return f"  {name:32}{0:>14}"
    ordered = sorted(values)
    shown = (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1])
    return f"  {name:32}{len(ordered):>14,}" + "".join(f"{1000 * value:>12,.1f}" for value in shown)
