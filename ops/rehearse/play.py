"""One rehearsal: the events in order, and the observations."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from ops.rehearse.events import AT_ONCE, WELL_WITHIN, Event, Report
from ops.rehearse.isolation import until
from ops.rehearse.journal import Journal
from ops.rehearse.leaders import Led
from ops.rehearse.load import Broken, Request
from ops.rehearse.measure import Happened, Row, row, windows
from ops.rehearse.member import Member
from ops.rehearse.profile import Profile
from ops.rehearse.programs import RehearsalError
from ops.rehearse.stage import Stage
from ops.rehearse.versions import Version
from tests.chaos.database import Accepted


@dataclass
class Record:
    """The observations of a rehearsal.

    Times are seconds since the epoch: tasks, servers and observers share one clock.
    """

    began: float
    ended: float = inf
    rows: list[Row] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    led: list[Led] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    writes: list[Accepted] = field(default_factory=list)


@dataclass
class _Played:
    event: Event
    began: float
    report: Report
    healthy_after: float | None


async def rehearse(
    folder: Path,
    profile: Profile,
    versions: Mapping[str, Version],
    first: str,
    events: Sequence[Event],
    journal: Journal,
) -> Record:
    """Play the events on a service that begins with the version `first`; returns the observations and the rows.

    Raises:
        RehearsalError: the rehearsal cannot be set up.
        ServerError: a server cannot be started.
    """
    stage = Stage(folder, profile, versions, first, journal)
    record = Record(time.time())
    played: list[_Played] = []
    async with stage.running():
        record.began = time.time()
        for number, event in enumerate(events, 1):
            journal.event("event", f"{number} of {len(events)}: {event.name}")
            played.append(await _play(stage, event))
            if played[-1].healthy_after is None:
                break
        ended = time.time()
        record.writes = await stage.writes()
    record.ended = ended
    record.members, record.led = stage.service.members, stage.leaders.led
    record.requests, record.broken = stage.load.requests, stage.load.broken
    spans = windows([each.began for each in played], ended)
    for each, span in zip(played, spans, strict=True):
        record.happened.append(
            Happened(
                each.event.name,
                span,
                lossless=each.event.lossless,
                allowed=_allowed(stage.ttl) if each.event.by_expiry else AT_ONCE,
                healthy_after=each.healthy_after,
                unwanted=tuple(each.report.unwanted),
                complaints=tuple(each.report.complaints),
                faults=tuple(each.report.faults),
            )
        )
        seen = record.requests, record.broken, record.led, record.writes
        record.rows.append(row(record.happened[-1], *seen))
    return record


async def _play(stage: Stage, event: Event) -> _Played:
    began = time.time()
    report = Report(since=began)
    healthy_after = None
    try:
        await event.play(stage, report)
        await until(stage.is_well, WELL_WITHIN, "the service is healthy and led")
        healthy_after = time.time() - report.since
        await asyncio.sleep(stage.profile.settle + report.hold)
    except RehearsalError as error:
        report.complaints.append(str(error))
        stage.journal.event("event", str(error))
    return _Played(event, began, report, healthy_after)


def _allowed(ttl: float) -> float:
    """Maximum seconds without a leader if a lease has to expire: the failover guard may take a second ttl."""
    return 2 * ttl + ttl / 3 + AT_ONCE
