"""The responses of the internal listener."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runtime.escape import one_line
from service.api.response_types import (
    Count,
    Day,
    Instant,
    OutsideText,
    PositiveCount,
    ResponseModel,
    Token,
    items,
)
from service.portfolio.records import RunStatus

MAX_ERROR_LENGTH = 300
"""Limit of a failed run's error in a response, in characters."""
MOST_TERMS = 50
"""Limit of the terms of a lease in a response."""

Seconds = Annotated[float, Field(json_schema_extra={"minimum": 0})]


def _error_line(text: str) -> str:
    return one_line(text, MAX_ERROR_LENGTH)


class LastWriter(ResponseModel):
    """The newest term that claimed the lease's fence in the database."""

    holder: OutsideText
    token: Token
    since: Instant = Field(validation_alias="taken_at")


class Lease(ResponseModel):
    """A lease as this task's process sees it."""

    is_leader: bool = Field(description="Whether this task's process leads.")
    state: OutsideText = Field(description="The state that the sidecar reports; `unknown` while it reports none.")
    holder: OutsideText | None
    token: Token | None
    remaining: float = Field(
        description="Seconds for which this process may still believe that it leads.", json_schema_extra={"minimum": 0}
    )
    lease_remaining: Seconds | None = Field(
        description="Seconds until the holder's lease ends unless it is renewed; null if this is unknown."
    )
    trouble: OutsideText | None = Field(
        description="The problem with the lease, as this task's sidecar sees it, or the step-down under way."
    )
    last_writer: LastWriter | None


class Leases(ResponseModel):
    """The leases by name."""

    background_services: Lease
    daily_scheduler: Lease


class Loading(ResponseModel):
    """The progress of the leader in loading the positions of all portfolios. Any task may be the leader."""

    portfolios_done: Count = Field(validation_alias="done")
    portfolios: Count = Field(validation_alias="total")


class Tracker(ResponseModel):
    """The intraday tracker."""

    lease: Literal["background_services"] = "background_services"
    market_open: bool
    last_run: Instant | None = Field(description="Time at which this task last received values, written by any task.")
    next_run: Instant | None
    loading: Loading | None


class JobRun(ResponseModel):
    """The latest run of a job."""

    session_date: Day
    status: RunStatus
    rows_written: Count
    rows_added: Count
    rows_changed: Count
    attempts: PositiveCount
    error: Annotated[str, AfterValidator(_error_line)] | None = Field(description="Why the last attempt failed.")
    holder: OutsideText
    token: Token
    started_at: Instant
    updated_at: Instant
    finished_at: Instant | None


class Job(ResponseModel):
    """A daily job."""

    lease: Literal["daily_scheduler"] = "daily_scheduler"
    last_run: JobRun | None
    next_run: Instant


class Jobs(ResponseModel):
    """The tracker and the daily jobs, by name."""

    tracker: Tracker
    eod: Job
    snapshot: Job
    reconstruction: Job


class Problem(ResponseModel):
    """A problem. An error needs a person; a warning may be intended, or may end by itself."""

    severity: Literal["error", "warning"]
    text: str


class BackgroundStatus(ResponseModel):
    """The leaders, the last and the next run of each job, and the problems."""

    now: Instant = Field(description="The clock of this task.")
    version: str = Field(description="The version of the service.")
    instance_id: OutsideText | None
    problems: list[Problem] = Field(description="The problems in words; an empty list if there is no problem.")
    leases: Leases
    jobs: Jobs
    database: str = Field(description="`ok`, or what is wrong. In an outage the jobs' last runs are null.")
    sidecar: OutsideText = Field(description="`ok`, or what is wrong.")


class PastTerm(ResponseModel):
    """A term of a lease, in any task."""

    token: Token
    holder: OutsideText
    acquired_at: Instant
    released_at: Instant | None = Field(description="Null unless the holder released the lease.")
    end: Literal["released", "not released", "holding"] = Field(
        description="`not released` if the lease expired or was deleted, as after the loss of a task."
    )
    reason: OutsideText | None


class LeaseHistory(ResponseModel):
    """The last terms of a lease."""

    terms: list[PastTerm] = items(0, MOST_TERMS, "The newest term first.")
    trouble: OutsideText | None = Field(description="Why the terms are unknown; then the list is empty.")


class Histories(ResponseModel):
    """The last terms by lease."""

    background_services: LeaseHistory
    daily_scheduler: LeaseHistory


class History(ResponseModel):
    """The last terms of all leases."""

    leases: Histories


class Health(ResponseModel):
    """Whether the task serves, and the state of its memory and of its dependencies."""

    status: Literal["ok", "draining"]
    database: str = Field(description="`ok`, or what is wrong.")
    sidecar: str = Field(description="`ok`, or what is wrong.")
    memory: str = Field(description="`ok`, or the use of the memory while new streams are refused.")
