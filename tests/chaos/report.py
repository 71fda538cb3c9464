"""The verdict of a run, in words and figures."""

from collections import Counter

from tests.chaos.oracles import excused, overlaps
from tests.chaos.run import Record
from tests.chaos.schedule import LEASES

WORST = 20
"""How many violations are told in full."""


def verdict(record: Record) -> str:
    """A table of what was done and seen, and then whether every promise was kept."""
    faults = Counter(happening.kind for happening in record.happenings)
    both = overlaps(record.beliefs)
    lines = [
        "",
        f"Faults      {sum(faults.values())}: {', '.join(f'{count} {kind}' for kind, count in faults.most_common())}",
    ]
    for lease in LEASES:
        terms = {belief.token for belief in record.beliefs if belief.lease == lease}
        writes = sum(write.lease == lease for write in record.writes)
        refused = sum(refusal.lease == lease for refusal in record.refusals)
        led = sum(stretch for _, stretch in _led(record, lease))
        lines.append(
            f"{lease}: {len(terms)} terms, led {100 * led / max(record.ended - record.began, 1e-9):.0f} % of the time,"
            f" {writes} writes accepted, {refused} stale ones refused"
        )
    lines.append(
        f"Overlaps    {len(both)} of beliefs, {sum(excused(one, record.deletions, record.boot) for one in both)} of"
        " them after an operator's DEL, where only the fence is promised"
    )
    lines += [
        f"Calm        {measure.lease} led again {measure.seconds * 1000:.0f} ms after a {measure.kind}"
        f" (at most {measure.bound:.1f} s)"
        for measure in record.measures
    ]
    if not record.violations:
        return "\n".join([*lines, "", "VERDICT: every promise was kept."])
    told = [
        f"  {violation.law}: {violation.text}"
        + (f", at {violation.at - record.began:.2f}" if violation.at is not None else "")
        for violation in record.violations[:WORST]
    ]
    more = [f"  ... and {len(record.violations) - WORST} more"] if len(record.violations) > WORST else []
    return "\n".join([*lines, "", f"VERDICT: {len(record.violations)} VIOLATIONS, SEED={record.seed}", *told, *more])


def _led(record: Record, lease: str) -> list[tuple[float, float]]:
    """When, and for how long each, somebody believed: (began, seconds), overlaps counted once."""
    found: list[tuple[float, float]] = []
    reached = 0.0
    for belief in sorted(record.beliefs, key=lambda belief: belief.began):
        if belief.lease == lease and belief.end > reached:
            began = max(belief.began, reached)
            found.append((began, belief.end - began))
            reached = belief.end
    return found
