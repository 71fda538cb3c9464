"""The laws that hold in every world, and the measurements. The first violation ends the world.

The contract has exceptions: an operator deletes the key by hand or overwrites it (a DISABLED that lasts longer than a
ttl is no exception); the server's clock steps further than the margin; an isolated old primary still serves, without
MIN_REPLICAS. In an exception only the first promise holds: no write of an older term after a write of a newer term.
"""

from typing import TYPE_CHECKING

from sidecar.election import herd
from sidecar.protocol import YIELD_FOR
from tests.simulation.store import Store, Tenure

if TYPE_CHECKING:
    from tests.simulation.candidate import Sidecar
    from tests.simulation.client import Client
    from tests.simulation.world import World


class Violation(Exception):
    """A broken promise; `law` is its short name."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(text)
        self.law = law


class Oracle:
    """The observer of one world. Times are in true seconds, except those marked as local."""

    def __init__(self, world: "World") -> None:
        self.world = world
        timings = world.scenario.timings
        self.store = Store()
        self.exempt_until = 0.0
        self.calm_since = 0.0
        self.disabled_since = 0.0
        self.ghost_until = 0.0
        """The time until which a sidecar may lead after its client was killed, because the demand lasts until then."""
        self._orphan_until = 0.0
        """The time until which Redis may execute the call of a killed sidecar."""
        self._tenures: dict[tuple[str, int], Tenure] = {}
        self._won = 0
        self._newest: Tenure | None = None
        self._last_accepted: Tenure | None = None
        self._last_believed = 0.0
        self._pending: tuple[str, float, float, int, int] | None = None
        self._pendings = 0
        self._resigned = (-1, 0, 0.0)
        """The last resign: task, boot, local time; task -1 once a term has begun."""
        self._asked: dict[int, float] = {}
        """The terms that an operator asked to step down, and when."""
        self._rests: dict[int, tuple[int, float]] = {}
        """By task: the boot that has stepped down and released the lease, and when (local time)."""
        drift = 0.045 * timings.heartbeat  # a follower waits for the key's expiry by its own clock
        self.bound = 0.1 + drift + (timings.heartbeat if world.scenario.watch == "off" else 0.0)
        # In a large fleet three delays may add up: a call after a direct notice, the relay, and a call after the relay.
        if world.scenario.large_fleet:
            self.bound += 3 * herd.SPREAD
        elif (world.scenario.watchers or 0) > herd.SMALL_FLEET:
            self.bound += herd.SPREAD
        late = world.scenario.late_demotion
        self.patience = 2.5 * timings.ttl + 15 * timings.call_limit + 5 + late
        self.quiet = 3 * timings.ttl + late
        self.hand_over: list[float] = []
        self.takeover: list[float] = []
        self.silence: list[float] = []
        self.terms = 0
        self.writes = 0
        self.refused = 0

    def exempt(self, seconds: float) -> None:
        """Begin an exception of the contract: for this number of seconds, only the first promise holds."""
        self.exempt_until = max(self.exempt_until, self.world.now + seconds)
        self.world.at(self.exempt_until, self._alone)

    @property
    def exempted(self) -> bool:
        """Whether an exception is in force."""
        return self.world.now < self.exempt_until

    # Beliefs.

    def won(self, sidecar: "Sidecar", token: object, sent_at: float) -> None:
        """A term began in Redis, by a call that was sent at `sent_at` (local time)."""
        if not self.world.scenario.campaigns(sidecar.task):
            raise Violation("follower leads", f"{sidecar.instance} has CAMPAIGN=false, and began a term")
        task, boot, resigned_at = self._resigned
        if task == sidecar.task:
            early = boot == sidecar.boot and 0 <= sent_at - resigned_at < YIELD_FOR - 1e-6
            if early and not self.exempted:
                text = f"{sidecar.instance} resigned and acquired again {sent_at - resigned_at:.3f} s later"
                raise Violation("did not yield", text)
        self._resigned = (-1, 0, 0.0)
        boot, released_at = self._rests.pop(sidecar.task, (-1, 0.0))
        rested = sent_at - released_at
        # An acquire that was sent before the step-down may be delivered after it.
        early = boot == sidecar.boot and 0 <= rested < self.world.scenario.timings.rest - 1e-6
        if early and not self.exempted:
            text = f"{sidecar.instance} stepped down and acquired again {rested:.3f} s later"
            raise Violation("did not rest", text)
        self._rests.clear()  # for the other tasks, another candidate has led
        if isinstance(token, int):
            self._tenure(sidecar.instance, token)

    def _tenure(self, holder: str, token: int) -> Tenure:
        tenure = self._tenures.get((holder, token))
        if tenure is None:
            self._won += 1
            tenure = self._tenures[holder, token] = Tenure(holder, token, self._won, self.exempted)
        return tenure

    def began(self, client: "Client", holder: str, token: int) -> Tenure:
        """A client begins to believe that it leads."""
        world, now = self.world, self.world.now
        client.tenure = tenure = self._tenure(holder, token)
        if tenure.client not in ("", client.name):
            raise Violation("token shared", f"{holder}'s new client got token {token} of the previous client")
        tenure.client = client.name
        self.terms += 1
        if world.trace is not None:
            world.record(f"{holder}'s client BELIEVES, token {token}, {client.until() - now:.3f} s")
        self.resumed(client)
        if self.world.now > self.disabled_since + self.world.scenario.timings.ttl:
            self._mind_disabled(client)
        if self._newest is None or tenure.ordinal > self._newest.ordinal:
            self._newest = tenure
        self._vacancy_ends(client)
        return tenure

    def resumed(self, client: "Client") -> None:
        """A client believes for the first time or again: no other client may believe."""
        now = self.world.now
        if not client.until() > now:
            return
        for other in self.world.clients:
            if other is not client and other.believes:
                other.sync()
                until = other.until()
                if until > now:
                    self.world.count("overlap in an exception" if self.exempted else "overlap")
                    if not self.exempted:
                        names = [each.tenure.holder if each.tenure else "?" for each in (client, other)]
                        text = f"the clients of {names[0]} and {names[1]} believe, the latter for {until - now:.3f} s"
                        raise Violation("two believers", text)

    def _alone(self, _: None = None) -> None:
        """Check, outside of exceptions, that no two clients believe: both may have begun during an exception."""
        if not self.exempted:
            for client in self.world.clients:
                if client.believes:
                    client.sync()
                    self.resumed(client)

    def disabled(self) -> None:
        """An operator wrote DISABLED into the key."""
        self.disabled_since = self.world.now
        if not self._disturbed(self.world.now):
            timings = self.world.scenario.timings
            heard = self.world.now + 1.1 * timings.heartbeat + 2 * timings.call_limit
            self.world.at(heard, self._obeyed, (self.world.now, self._pendings))
        self.world.at(self.world.now + self.world.scenario.timings.ttl, self._obeyed, (self.world.now, None))

    def _obeyed(self, arg: tuple[float, int | None]) -> None:
        """Check that no client leads.

        The early check has a `number`, and counts only if no fault has begun since DISABLED was written.
        The check after a ttl has None as its number, and counts in any case. Neither counts after a later DISABLED.
        """
        since, number = arg
        if since == self.disabled_since and number in (None, self._pendings):
            for client in self.world.clients:
                if client.believes:
                    client.sync()
                    self._mind_disabled(client)

    def _mind_disabled(self, client: "Client") -> None:
        now, server = self.world.now, self.world.primary
        server.set_clock(now)
        server.model.expire()
        if (server.model.value or "").upper() == "DISABLED" and client.until() > now:
            raise Violation("leads while disabled", f"{now - self.disabled_since:.1f} s after DISABLED was written")

    def ended(self, client: "Client") -> None:
        """A client stops believing."""
        until = client.sidecar.true(client.deadline)
        self._last_believed = max(self._last_believed, min(until, self.world.now))
        if self.world.trace is not None and client.tenure is not None:
            self.world.record(f"{client.tenure.holder}'s client no longer leads, token {client.tenure.token}")

    def released(self, sidecar: "Sidecar", token: object) -> None:
        """A release deleted the key."""
        if isinstance(token, int) and token in self._asked and sidecar.lease.step_down(sidecar.now()):
            self._rests[sidecar.task] = sidecar.boot, sidecar.now()
        client = sidecar.client
        if client.working and client.tenure is not None and client.tenure.token == token and not self.exempted:
            client.sync()
            left = sidecar.true(client.deadline) - self.world.now
            if left > 0:
                raise Violation(
                    "released too early",
                    f"{sidecar.instance} released token {token} while its client works, {left:.3f} s too early",
                )

    # An operator's step-down.

    def asked_to_step_down(self, token: int) -> None:
        """An operator asked for the end of the term with this token."""
        timings, now = self.world.scenario.timings, self.world.now
        self._asked[token] = now
        if not self._disturbed(now):
            heard = 1.1 * timings.heartbeat + 2 * timings.call_limit + timings.grant_ttl
            self.world.at(now + heard, self._stepped_down, (token, self._pendings))

    def fence_changed(self) -> None:
        """A person changed the fence: the new token looks like the token of a new term, and ends a rest."""
        self._rests.clear()

    def _stepped_down(self, arg: tuple[int, int]) -> None:
        """Check that no client still acts under the term with this token, if nothing has disturbed the holder."""
        token, number = arg
        for client in self.world.clients:
            if number == self._pendings and client.believes and client.tenure and client.tenure.token == token:
                client.sync()
                if client.until() > self.world.now:
                    raise Violation("kept its term", f"{client.tenure.holder} was asked to step down from {token}")

    def steps_down(self, sidecar: "Sidecar", token: int | None) -> None:
        """A holder has received the request to give up the term with this token."""
        if token not in self._asked:
            raise Violation("stepped down unasked", f"{sidecar.instance} gives up token {token}")
        if sidecar.lease.leads(sidecar.now()):
            raise Violation("still leads", f"{sidecar.instance} was asked to step down from {token}")

    # Writes.

    def wrote(self, client: "Client", tenure: Tenure, accepted: bool | None) -> None:
        """A transaction committed or was refused; `accepted` is None if it waits."""
        if accepted is None:
            return
        if self.world.trace is not None:
            self.world.record(
                f"write of {tenure.holder}, token {tenure.token}: {'accepted' if accepted else 'refused'}"
            )
        if accepted:
            self.writes += 1
            last = self._last_accepted
            if last is not None and tenure is not last:
                doubtful = tenure.doubtful or last.doubtful or self.exempted
                if tenure.token < last.token or (tenure.ordinal < last.ordinal and not doubtful):
                    raise Violation(
                        "stale write",
                        f"a write of {tenure.holder} (token {tenure.token}) was accepted after one of"
                        f" {last.holder} (token {last.token}), whose term is newer",
                    )
            self._last_accepted = tenure
            return
        self.refused += 1
        doubtful = tenure.doubtful or self.exempted
        if tenure is self._newest and client.tenure is tenure and not doubtful and client.until() > self.world.now:
            raise Violation(
                "leader refused",
                f"a write of {tenure.holder}, the newest leader (token {tenure.token}), was refused:"
                f" the fence is at {self.store.token}",
            )

    # The hand-over: another client leads soon.

    def resigns(self, sidecar: "Sidecar") -> None:
        """A client resigns while its sidecar leads."""
        self._resigned = (sidecar.task, sidecar.boot, sidecar.now())
        self._vacate("hand-over", self.world.now, self.world.now, sidecar)

    def silent(self, client: "Client") -> None:
        """A client is killed. If its sidecar leads, another client must lead soon after the end of the last grant."""
        sidecar = client.sidecar
        leads = sidecar.alive and not sidecar.frozen and sidecar.lease.leads(sidecar.now())
        if client.believes and leads and client.until() > self.world.now:
            grant = self.world.scenario.timings.grant_ttl / sidecar.rate
            self._vacate("silence", self.world.now, self.world.now + grant, sidecar)
        else:
            self.ghost_until = self.world.now + 2.1 * self.world.scenario.timings.grant_ttl + 0.2

    def lost(self, sidecar: "Sidecar") -> None:
        """A task ends for good. If it holds the lease, the lease is free when the key expires."""
        model = self.world.primary.model
        if model.value == sidecar.instance and model.expires is not None and not sidecar.calling:
            expiry = self.world.primary.true_time(model.expires)
            if expiry > self.world.now:
                self._vacate("takeover", expiry, expiry, sidecar)

    def _vacate(self, kind: str, since: float, due: float, sidecar: "Sidecar") -> None:
        orphan = self.world.now < self._orphan_until
        if orphan or self._disturbed(self.world.now) or not self.world.scenario.require_client:
            return
        self._pendings += 1
        self._pending = (kind, since, due, sidecar.task, self._pendings)
        self.world.at(due + self.bound, self._expect, self._pendings)

    def allow(self, seconds: float) -> None:
        """Allow the measured vacancy this number of additional seconds."""
        if self._pending is not None:
            kind, since, due, task, _ = self._pending
            self._pendings += 1
            self._pending = (kind, since, due + seconds, task, self._pendings)
            self.world.at(due + seconds + self.bound, self._expect, self._pendings)

    def forget(self) -> None:
        """Stop measuring a vacancy, because an event may extend it."""
        self._pending = None
        self._pendings += 1

    def orphaned(self) -> None:
        """A sidecar was killed during a call. If the call acquires the lease, no client can use the term."""
        self._orphan_until = self.world.now + 1.1 * self.world.scenario.timings.call_limit
        self.forget()

    def restarted(self, sidecar: "Sidecar") -> None:
        """A sidecar was restarted: while its key still exists, the sidecar must adopt its term."""
        world, model, client = self.world, self.world.primary.model, sidecar.client
        if model.value != sidecar.instance or model.expires is None or self._disturbed(world.now):
            return
        timings = world.scenario.timings  # a client without a grant waits for the end of the previous process's grants
        takes = 2.0 + 1.05 * timings.grant_ttl + timings.call_limit
        if client.ready_since is not None and world.primary.true_time(model.expires) > world.now + 2 * takes:
            self._pendings += 1
            world.at(world.now + takes, self._expect_return, (self._pendings, client, sidecar.started))

    def _expect_return(self, arg: "tuple[int, Client, float]") -> None:
        number, client, started = arg
        undisturbed = number == self._pendings and client.sidecar.started == started
        if undisturbed and client.ready_since is not None and not self._disturbed(self.world.now):
            client.sync()
            held = self.world.primary.model.value == client.sidecar.instance
            if held and not client.until() > self.world.now:
                raise Violation("term not adopted", f"{client.sidecar.instance} was restarted within its lease")

    def _disturbed(self, since: float) -> bool:
        return (
            self.world.disturbances > 0 or max(self.calm_since, self.ghost_until) > since - self.quiet or self.exempted
        )

    def _vacancy_ends(self, client: "Client") -> None:
        pending, self._pending = self._pending, None
        if pending is None or client.sidecar.task == pending[3] or self._disturbed(self.world.now):
            return
        kind, since, due, _, _ = pending
        if any(self._ready(other, since) for other in self.world.clients if other.sidecar.task != pending[3]):
            {"hand-over": self.hand_over, "takeover": self.takeover, "silence": self.silence}[kind].append(
                max(0.0, self.world.now - due)
            )
            self._judge(kind, self.world.now - due)

    def _expect(self, number: int) -> None:
        pending = self._pending
        if pending is None or pending[4] != number:
            return
        self._pending = None
        if self._disturbed(self.world.now):
            return
        kind, since, due, task, _ = pending
        if any(self._ready(client, since) for client in self.world.clients if client.sidecar.task != task):
            self._judge(kind, self.world.now - due + 1e-3)

    def _judge(self, kind: str, late: float) -> None:
        if late > self.bound:
            raise Violation(f"slow {kind}", f"the {kind} is {late:.3f} s late, the bound is {self.bound:.3f} s")

    def _ready(self, client: "Client", since: float) -> bool:
        """Whether a client has campaigned undisturbed for long enough, with a sidecar that may lead."""
        ready, sidecar = client.ready_since, client.sidecar
        spare = 2 * self.world.heartbeat + 2
        if ready is None or not self.world.scenario.campaigns(sidecar.task):
            return False
        return ready < since - spare and sidecar.alive and sidecar.started < since - spare

    def busy(self, sidecar: "Sidecar") -> None:
        """The election loops run without a pause."""
        raise Violation("busy", f"{self.world.rounds:,} rounds of election loops, the last of {sidecar.instance}")

    def inspect(self) -> None:
        """Check the whole world, just before a fault and at the end."""
        world, now = self.world, self.world.now
        self._alone()
        if (
            world.disturbances
            or self.exempted
            or not world.scenario.require_client
            or now - self.calm_since < self.patience
        ):
            return
        for client in world.clients:
            if client.believes:
                client.sync()
                self._last_believed = max(self._last_believed, min(now, client.sidecar.true(client.deadline)))
        since = max(self.calm_since, self._last_believed)
        ready = [
            client.ready_since
            for client in world.clients
            if client.ready_since is not None
            and world.scenario.campaigns(client.sidecar.task)
            and client.sidecar.alive
            and client.sidecar.started < now - self.patience
        ]
        led = False
        for client in world.clients:
            if client.believes:
                client.sync()
                led = led or client.until() > now
        if not led and ready and max(since, min(ready)) < now - self.patience:
            raise Violation(
                "nobody leads", f"no client leads after {now - max(since, min(ready)):.1f} s without a fault"
            )
        for client in world.clients:
            sidecar = client.sidecar
            if sidecar.alive and client.ready_since is not None and client.ready_since < now - self.patience:
                idle = now - max(sidecar.answered_at, sidecar.started)
                if idle > 1.2 * world.heartbeat + 2 * world.scenario.timings.call_limit:
                    raise Violation("stuck", f"Redis has not answered {sidecar.instance} for {idle:.1f} s")
