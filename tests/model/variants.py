"""The checks: the correct protocol within given bounds, and variants that break one rule each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One run of Spin.

    Attributes:
        name: the name for the command line.
        about: one line about the check or the broken rule.
        macros: the macros of lease.pml that the run defines, with or without a value.
        holds: true if no assertion may be violated; false if one must be.
        long: true if the run belongs to `make model`; the other runs belong to `make test-slow`, except `BEYOND`.
    """

    name: str
    about: str
    macros: tuple[str, ...]
    holds: bool = False
    long: bool = False


ONE_FAULT = ("FAULTS=1", "TERMS=3")
NO_FAILOVER = ("FAILOVERS=0",)
FAILOVERS_ONLY = ("CRASHES=0", "DEATHS=0", "RESTARTS=0", "STEPS=0")
LATE_DEMOTION = ("DEMOTION=3", "IN_STEP", "NONE_LATE", "FAULTS=1", "TERMS=2", *FAILOVERS_ONLY)
BELIEFS_ONLY = ("ONLY_PROMISE_2",)

RIGHT = (
    Check(
        "right",
        "promises 2 to 6: a crash, a death, an empty restart of Redis or a step of its clock",
        ("FAULTS=1", "TERMS=2", *NO_FAILOVER),
        holds=True,
    ),
    Check(
        "failover", "promises 2 to 6: failover to a stale replica", ("FAULTS=1", "TERMS=2", *FAILOVERS_ONLY), holds=True
    ),
    Check(
        "fence",
        "promise 1: clients that froze during a write thaw at any time",
        ("FENCE", "FAULTS=1", "TERMS=2", "CRASHES=0", "DEATHS=0", "STEPS=0", *NO_FAILOVER),
        holds=True,
    ),
    Check(
        "step-down",
        "promises 2, 4 and 6 while an operator asks any term's holder to step down, with a crash",
        ("STEP_DOWN", "FAULTS=1", "TERMS=2", "DEATHS=0", "RESTARTS=0", "STEPS=0", *NO_FAILOVER),
        holds=True,
    ),
    Check(
        "liveness",
        "promise 3: after a death, a restart of Redis or a failover, somebody leads within a ttl and a tick of calm",
        ("LIVENESS", "FAULTS=1", "TERMS=1", "CRASHES=0", "STEPS=0"),
        holds=True,
    ),
    Check(
        "late-demotion",
        "after a failover the old primary serves for three more ticks, to the tasks that are still connected to it",
        LATE_DEMOTION,
        holds=True,
    ),
    Check(
        "step-down-any-fault",
        "any one fault, while an operator asks any term's holder to step down",
        ("STEP_DOWN", "FAULTS=1", "TERMS=2"),
        holds=True,
        long=True,
    ),
    Check("any-fault", "any one fault, two terms", ("FAULTS=1", "TERMS=2"), holds=True, long=True),
    Check("three-terms", "any one fault, three terms", ("FAULTS=1", "TERMS=3"), holds=True, long=True),
    Check("two-faults", "any two faults, no failover", ("FAULTS=2", "TERMS=2", *NO_FAILOVER), holds=True, long=True),
    Check(
        "two-failovers",
        "a failover and a failover back, also to the old primary's old data",
        ("FAULTS=2", "TERMS=2", *FAILOVERS_ONLY),
        holds=True,
        long=True,
    ),
    Check(
        "two-late",
        "two late requests of each task at once; any one fault except a failover",
        ("LATE=2", "FAULTS=1", "TERMS=2", *NO_FAILOVER),
        holds=True,
        long=True,
    ),
    Check(
        "late-demotion-stale",
        "the same as late-demotion, with a replica that may be stale",
        ("DEMOTION=3", "NONE_LATE", "FAULTS=1", "TERMS=2", *FAILOVERS_ONLY),
        holds=True,
        long=True,
    ),
    Check(
        "late-demotion-late",
        "the same as late-demotion, with late requests",
        ("DEMOTION=3", "IN_STEP", "FAULTS=1", "TERMS=2", *FAILOVERS_ONLY),
        holds=True,
        long=True,
    ),
    Check(
        "longer-times",
        "finer time: ttl 4, grant 2; any one fault except a failover",
        ("TTL=4", "GRANT=2", "FAULTS=1", "TERMS=2", *NO_FAILOVER),
        holds=True,
        long=True,
    ),
    Check(
        "three-candidates",
        "three candidates; a crash, or an empty restart of Redis",
        ("N=3", "FAULTS=1", "TERMS=2", "DEATHS=0", "STEPS=0", *NO_FAILOVER),
        holds=True,
        long=True,
    ),
    Check(
        "fence-failover",
        "promise 1, with failovers",
        ("FENCE", "FAULTS=1", "TERMS=2", *FAILOVERS_ONLY),
        holds=True,
        long=True,
    ),
    Check(
        "late-release",
        "a release without a deadline in the server's time does no harm: its tenure stops the release",
        ("NO_DEADLINE=release", "FAULTS=1", "TERMS=2", *NO_FAILOVER),
        holds=True,
        long=True,
    ),
)

BROKEN = (
    Check("lead_from_reply", "the deadline counts from the reply", ("LEAD_FROM_REPLY", *ONE_FAULT, *NO_FAILOVER)),
    Check("no_margin", "a term is believed until its key expires", ("NO_MARGIN", *ONE_FAULT, *NO_FAILOVER)),
    Check("stored_flag", "leading is stored, not computed from the clock", ("STORED_FLAG", *ONE_FAULT, *NO_FAILOVER)),
    Check(
        "grant_from_answer",
        "the client counts its grant from the answer",
        ("GRANT_FROM_ANSWER", *BELIEFS_ONLY, *ONE_FAULT, *NO_FAILOVER),
    ),
    Check(
        "late_acquire",
        "an acquire has no deadline in the server's time: it takes the lease for a dead task",
        ("NO_DEADLINE=acquire", *ONE_FAULT, *NO_FAILOVER),
    ),
    Check(
        "late_renew",
        "a renewal has no deadline in the server's time: it keeps the lease for a dead task",
        ("NO_DEADLINE=renew", *ONE_FAULT, *NO_FAILOVER),
    ),
    Check(
        "release_without_token",
        "a release compares the id only",
        ("RELEASE_WITHOUT_TOKEN", "RELEASE_WITHOUT_TENURE", *ONE_FAULT, *NO_FAILOVER),
    ),
    Check(
        "release_before_stop",
        "the lease is released while its client still acts",
        ("RELEASE_BEFORE_STOP", *BELIEFS_ONLY, *ONE_FAULT, *NO_FAILOVER),
    ),
    Check(
        "predecessors_grant",
        "a restarted sidecar ignores the grants of its predecessor",
        ("PREDECESSORS_GRANT_FORGOTTEN", *BELIEFS_ONLY, *ONE_FAULT, *NO_FAILOVER),
    ),
    Check(
        "release_without_tenure",
        "a release compares id and token: a release from before a restart hits the adopted term",
        ("RELEASE_WITHOUT_TENURE", *ONE_FAULT, *NO_FAILOVER),
    ),
    Check(
        "tenure_per_give_up",
        "successive acquires share a tenure: a late acquire restores the tenure, which a late release then matches",
        ("TENURE_PER_GIVE_UP", "LATE=2", "FAULTS=1", "TERMS=2", *NO_FAILOVER, "RESTARTS=0", "DEATHS=0", "STEPS=0"),
    ),
    Check(
        "step_down_at_once",
        "a leader that is asked to step down releases the lease while its client still acts",
        ("STEP_DOWN", "STEP_DOWN_AT_ONCE", *BELIEFS_ONLY, *ONE_FAULT, *NO_FAILOVER),
    ),
    Check(
        "step_down_not_extended",
        "after a failover to a stale replica, a renewal that reports a step-down ends the guard, "
        "but does not extend the key",
        ("STEP_DOWN", "STEP_DOWN_NOT_EXTENDED", "FAULTS=1", "TERMS=2", *FAILOVERS_ONLY),
    ),
    Check("no_guard", "there is no failover guard", ("NO_GUARD", *ONE_FAULT)),
    Check(
        "guard_adopts", "the guard lets the holder of the key acquire", ("GUARD_ADOPTS", *ONE_FAULT, *FAILOVERS_ONLY)
    ),
    Check(
        "first_write",
        "a promoted replica without a fence counts as unchanged",
        ("FIRST_WRITE_UNGUARDED", *ONE_FAULT, *FAILOVERS_ONLY),
    ),
    Check(
        "names_return",
        "the guard identifies a server by its run_id alone: after two failovers the first server counts as unchanged",
        ("RUN_IDS_RETURN", "FAULTS=2", "TERMS=2", *FAILOVERS_ONLY),
    ),
    Check(
        "guard_restarts",
        "the guard's wait starts again with each call: nobody leads any more",
        ("GUARD_RESTARTS", "LIVENESS", "FAULTS=1", "TERMS=1", *FAILOVERS_ONLY[:2]),
    ),
    Check(
        "short_guard",
        "the guard does not wait for an old primary that continues to serve",
        ("SHORT_GUARD", *LATE_DEMOTION),
    ),
    Check(
        "acquire_unasked",
        "the sentinels are not asked before an acquire: a new term begins on the old primary",
        ("ACQUIRE_UNASKED", *LATE_DEMOTION),
    ),
    Check("counted_tokens", "tokens are counted in Redis alone", ("COUNTED_TOKENS", *ONE_FAULT, *NO_FAILOVER)),
    Check("no_fence", "a write does not compare its token", ("FENCE", "NO_FENCE", *ONE_FAULT, *NO_FAILOVER)),
)

BEYOND = (
    Check(
        "requests_follow",
        "a proxy forwards a late request to a server that was promoted in the meantime",
        ("REQUESTS_FOLLOW", "FAULTS=1", "TERMS=2", *FAILOVERS_ONLY),
    ),
)
"""Faults outside the assumptions, which the protocol does not withstand; for inspection only."""

CHECKS = {check.name: check for check in (*RIGHT, *BROKEN, *BEYOND)}
