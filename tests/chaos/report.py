"""The verdict of a run, as text."""

from collections import Counter

from tests.chaos.database import CLAIM
from tests.chaos.oracles import excused, overlaps
from tests.chaos.redis_faults import SKIPPED
from tests.chaos.run import Record
from tests.chaos.schedule import LEASES, Kind

PROMISES = {
    "stale write": "promise 1 is broken: a stale leader wrote",
    "unknown token": "promise 1 is broken: a stale leader wrote",
    "two believers": "promise 2 is broken: two clients acted at once",
    "nobody leads": "promise 3 is broken: nobody led",
    "slow takeover": "promise 3 is broken: nobody led",
    "candidate stuck": "promise 3 is broken: nobody led",
    "sidecar unhealthy": "promise 5 is broken: a fault of Redis made a sidecar unhealthy",
    "token given twice": "promise 1 is broken: two terms had one token",
}
"""The promise of docs/guarantees.md that each law belongs to; a law that is absent here belongs to no promise."""
WORST = 20
"""Maximum number of violations that are printed in full."""


def verdict(record: Record) -> str:
    """Return a table of faults and observations, then the verdict on the promises."""
    faults = Counter(happening.kind for happening in record.happenings if not happening.skipped)
    skipped = Counter(
        f"{happening.kind} ({happening.note.removeprefix(SKIPPED)})"
        for happening in record.happenings
        if happening.skipped
    )
    both = overlaps(record.beliefs)
    lines = [
        "",
        f"Faults      {sum(faults.values())}: {', '.join(f'{count} {kind}' for kind, count in faults.most_common())}",
    ]
    if skipped:
        lines.append(f"Skipped     {', '.join(f'{count} {what}' for what, count in skipped.most_common())}")
    for lease in LEASES:
        terms = {belief.token for belief in record.beliefs if belief.lease == lease}
        writes = sum(write.lease == lease and write.via != CLAIM for write in record.writes)
        refused = sum(refusal.lease == lease for refusal in record.refusals)
        led = sum(stretch for _, stretch in _led(record, lease))
        lines.append(
            f"{lease}: {len(terms)} terms, led {100 * led / max(record.ended - record.began, 1e-9):.0f} % of the time,"
            f" {writes} writes accepted, {refused} stale writes refused"
        )
    late = Counter(one.note for one in record.happenings if one.kind is Kind.FREEZE_WRITER and not one.skipped)
    if late:
        lines.append(
            f"Late writes {sum(late.values())} by writers frozen between check and write:"
            f" {', '.join(f'{count} {what}' for what, count in late.most_common())}"
        )
    lines.append(
        f"Overlaps    {len(both)} between beliefs, {sum(excused(one, record.deletions, record.boot) for one in both)}"
        " of them after an operator's DEL, after which only promise 1 holds"
    )
    lines += [
        f"Calm        {measure.lease} had a leader again {measure.seconds * 1000:.0f} ms after a {measure.kind}"
        f" (at most {measure.bound:.1f} s)"
        for measure in record.measures
    ]
    if not record.violations:
        untried = "" if record.refusals else " But no stale write was attempted: promise 1 was not tested."
        return "\n".join([*lines, "", f"VERDICT: every promise was kept.{untried}"])
    broken = sorted({PROMISES[violation.law] for violation in record.violations if violation.law in PROMISES})
    which = f" ({', '.join(broken)})" if broken else ""
    listed = [
        f"  {violation.law}: {violation.text}"
        + (f", at {violation.at - record.began:.2f}" if violation.at is not None else "")
        for violation in record.violations[:WORST]
    ]
    more = [f"  ... and {len(record.violations) - WORST} more"] if len(record.violations) > WORST else []
    return "\n".join(
        [*lines, "", f"VERDICT: {len(record.violations)} VIOLATIONS{which}, SEED={record.seed}", *listed, *more]
    )


def _led(record: Record, lease: str) -> list[tuple[float, float]]:
    """Return the periods in which a client believed that it led, as (began, seconds); overlaps count once."""
    found: list[tuple[float, float]] = []
    reached = 0.0
    for belief in sorted(record.beliefs, key=lambda belief: belief.began):
        if belief.lease == lease and belief.end > reached:
            began = max(belief.began, reached)
            found.append((began, belief.end - began))
            reached = belief.end
    return found
