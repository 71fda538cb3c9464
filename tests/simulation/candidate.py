"""A simulated sidecar: it drives the production `Lease` as `sidecar.election.candidate` and `sidecar.redis.store` do.

For one lease, this module copies the loop of `Candidate` (`run`, `_act`, `_open`, `_sleep`, `_wake_for`), the
transfer of a result to the lease (`_settle`), and the publication of a change (`_publish`). The copy of `hold` is in
the simulated client. All rules are in the production lease. `test_drivers.py` compares this module with the real code.

A loop without I/O, shared with `Candidate`, would replace about 60 lines here, but the simulator would run at a fifth
of its speed.

The loop is blocked during a call and while it connects. A call ends at its own time limit. A failed call closes the
connection, and the next call connects again. If no call is due, the loop connects after a pause that doubles each time.
A call that was certainly not executed (no connection could be made, or the server refused the script as a whole) is
repeated once, immediately, with the same limit. When a frozen process (SIGSTOP) thaws, it handles the events that
arrived during the freeze.
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from runtime.backoff import Backoff
from sidecar.election.lease import Lease
from sidecar.protocol import RESIGN_ANSWER_DELAY, Call, Kind, Outcome, Reply, ServerClock
from sidecar.redis.reconnects import reconnect_backoff
from tests.simulation.redis_model import Answer
from tests.simulation.server import FROM_INSIDE, Server

if TYPE_CHECKING:
    from tests.simulation.client import Client
    from tests.simulation.world import World

WON = (Outcome.ACQUIRED, Outcome.ADOPTED, Outcome.RENEWED)
COUNTING = (
    Outcome.HELD, Outcome.VACANT, Outcome.DISABLED, Outcome.SUPERSEDED, Outcome.GUARDED, Outcome.RELEASED,
)  # fmt: skip
"""Outcomes with which a script also reports the numbers of watches."""
HANDLING = 2e-4
"""Seconds that a message over loopback takes."""
TIMER = 1e-6
"""The delay of a timer, in seconds: a timer is never early."""

Request = tuple[int, Call, Server, str, int]
"""A request on its way: the attempt's number, the call, the server and its run id, the deadline in server time (µs)."""
Greeting = tuple[int, Call | None, Server, str, int]
"""A new connection: like `Request`, but without a deadline yet, and possibly without a call."""


class Sidecar:
    """The sidecar of one task. Local times are on the task's clock, which advances `rate` seconds in a true second."""

    __slots__ = (
        "_again",
        "_attempt",
        "_call",
        "_connection",
        "_connections",
        "_floor",
        "_inbox",
        "_offset",
        "_open_at",
        "_opening",
        "_published_after",
        "_reconnects",
        "_sent",
        "_timer",
        "_ttl_ms",
        "_version",
        "alive",
        "ambush",
        "answered_at",
        "asleep_until",
        "boot",
        "client",
        "clock",
        "cut",
        "deaf",
        "draining",
        "frozen",
        "instance",
        "lease",
        "rate",
        "server",
        "snare",
        "started",
        "task",
        "trouble",
        "watched",
        "watches_directly",
        "world",
    )

    def __init__(self, world: "World", task: int, rate: float, shift: float) -> None:
        self.world = world
        self.task = task
        self.rate = rate
        self.clock = shift
        """The task's clock at the true time 0."""
        self.client: Client
        self.instance = ""
        self.boot = 0
        self.alive = self.frozen = self.draining = False
        self.cut = False
        """Whether no packet passes between the sidecar and Redis."""
        self.deaf = False
        """Whether the watch misses every notice."""
        self.ambush: Callable[[Sidecar], None] | None = None
        """A fault that strikes right after the next request is sent."""
        self.snare: Callable[[Sidecar, Request], bool] | None = None
        """A handler of the next requests; it returns true for a request that it delivers, delays or drops itself."""
        self.started = 0.0
        """The true time since which the sidecar has run without interruption."""
        self.trouble: float | None = None
        """The share of messages to and from Redis that are lost (others are late or doubled); None: a good network."""
        self.server: Server | None = None  # the server of the connection
        self.watched: Server | None = None
        self.watches_directly = True
        """Whether the watch is direct; a relayed watch reports only that the lease is vacant."""
        timings = world.scenario.timings
        self._ttl_ms = int(timings.ttl * 1000)
        self._floor = int((timings.ttl - timings.heartbeat / 2) * 1000)
        self._timer = self._attempt = 0
        self._version = -1
        self._published_after = -inf
        self._inbox: list[tuple[Callable[[Any], None], Any]] = []
        self.answered_at = 0.0
        """The time of the last reply of Redis that was not `late`."""
        self.asleep_until = 0.0
        self._call: Call | None = None
        self._sent = self._again = self._opening = False
        self._connections = 0  # the number of the connection
        self._reconnects: Backoff
        self._open_at = 0.0
        self._offset = 0
        self._connection = ServerClock(world.scenario.timings.server_time_valid_for)
        self.lease: Lease

    @property
    def calling(self) -> bool:
        """Whether a call is in progress; Redis may execute the call even if the sidecar ends."""
        return self._call is not None

    def now(self) -> float:
        """The time on the task's clock."""
        return self.world.now * self.rate + self.clock

    def true(self, local: float) -> float:
        """The true time at which the task's clock shows `local`."""
        return (local - self.clock) / self.rate

    # The life of the process.

    def start(self, instance: str) -> None:
        """Start the process, without any state of an earlier process."""
        scenario = self.world.scenario
        self.instance = instance
        self.boot += 1
        self.started, self.ambush = self.world.now, None
        self.alive, self.frozen, self.draining = True, False, False
        self.lease = Lease(
            instance,
            scenario.timings,
            boot=str(self.boot),
            now=self.now(),
            uniform=self.world.random.uniform,
            require_client=scenario.require_client,
            replicated=scenario.min_replicas > 0,
            campaign=scenario.campaigns(self.task),
        )
        self._call, self._inbox, self._version, self._published_after = None, [], -1, -inf
        self._reconnects = reconnect_backoff(scenario.timings.heartbeat, self.world.random.uniform)
        self._disconnect()
        self.watches_directly = True
        self.world.at(self.world.now, self.watch, self.boot)
        self.client.found_sidecar()
        self._open()

    def kill(self) -> None:
        """End the process at once; the requests that it has sent are still delivered."""
        if self.alive:
            self.client.sync()
            if self.calling:
                self.world.oracle.orphaned()
            self.alive = self.frozen = False
            self._attempt += 1
            self._timer += 1
            self._call, self._inbox, self._opening = None, [], False
            self.unwatch()
            self.client.lost_sidecar()

    def freeze(self) -> None:
        """Stop the process (SIGSTOP)."""
        self.client.sync()
        self.frozen = True
        self.client.schedule_end_of_work()

    def thaw(self) -> None:
        """Continue the process (SIGCONT). It handles what arrived during the pause, usually in the order of arrival."""
        if not (self.alive and self.frozen):
            return
        self.frozen = False
        self.started = self.world.now
        inbox, self._inbox = self._inbox, []
        if self.world.random.random() < 0.5:  # a reply and its time limit: the process may see either first
            inbox.sort(key=lambda item: item[0] != self._time_out)
        if self.world.random.random() < 0.3:  # events of two connections have no common order
            inbox.sort(key=lambda item: item[0] == self.resigned)
        self.client.sidecar_thawed()
        for action, argument in inbox:
            action(argument)
        if self.alive:
            self.wake()

    def drain(self) -> None:
        """Drain (SIGTERM)."""
        if self.alive and not self.draining:
            if self.frozen:
                self._inbox.append((lambda _: self.drain(), None))
                return
            self.draining = True
            self.client.sync()
            self.lease.drain(self.now())
            self.publish(self.now())
            self.wake()

    # The election loop.

    def wake(self) -> None:
        """Run a round now, unless the loop is blocked or the process is frozen."""
        if self._call is None and not self._opening and not self.frozen:
            self._timer += 1
            self.world.at(self.world.now, self._timed, self._timer)

    def _wake_for(self, now: float) -> None:
        if self.lease.wake_at(now) < self.asleep_until:
            self.wake()

    def _timed(self, timer: int) -> None:
        if timer == self._timer:
            if self.frozen:
                return  # `thaw` runs the round
            if self.server is None and not self.draining and self.now() >= self._open_at:
                self._open()
            else:
                self.step()

    def step(self) -> None:
        """One round of `Candidate.run`."""
        world, lease = self.world, self.lease
        world.rounds += 1
        if world.rounds > world.most_rounds:
            world.oracle.busy(self)
        now = world.now * self.rate + self.clock
        self.asleep_until = -inf
        if self.draining and lease.drained(now):
            self.publish(now)
            self.kill()
            world.drained(self)
            return
        client = self.client
        if client.grant is not None and lease.remaining(now) < world.near_deadline:
            client.sync()
        call = lease.next_call(now)
        self.publish(now)
        self._timer += 1
        if call is not None:
            self._execute(call)
            return
        # A held request is demand, so the loop need not wake when the demand of answered requests ends. Without a
        # connection the loop wakes at that time too, because that round may connect.
        until = lease.wake_at(inf if client.held and self.server is not None else now)
        if self.server is None and not self.draining:
            until = max(now, min(until, self._open_at))
        if until > now + world.heartbeat:
            until = now + world.heartbeat
        self.asleep_until = until
        world.at((self.true(until) if until > now else world.now) + TIMER, self._timed, self._timer)

    def publish(self, now: float) -> None:
        """Answer the held request if the version has changed."""
        version = self.lease.view(now).version
        if version != self._version:
            self._version = version
            for transition in self.lease.transitions():
                self.world.transition(self, transition)
            if self.client.held and now < self._published_after:
                self.world.at(self.true(self._published_after) + TIMER, self._answer_held, self.boot)
            else:
                self._answer_held(self.boot)

    def _answer_held(self, boot: int) -> None:
        if self.frozen:
            self._inbox.append((self._answer_held, boot))
        elif self.alive and boot == self.boot and self.client.held:
            self.client.sync()
            if self.client.held:
                self.client.release(answered=True)

    def noticed(self, server: Server) -> None:
        """The watch reports a change."""
        if self.alive and self.watched is server:
            if self.frozen:
                self._inbox.append((self.noticed, server))
                return
            self.lease.noticed(self.now())
            self.wake()

    def relay_noticed(self, server: Server) -> None:
        """The watch reports a release that did not notify the relayed watches."""
        if self.alive and self.watched is server:
            if self.frozen:
                self._inbox.append((self.relay_noticed, server))
                return
            self.lease.relay_noticed(self.now())
            self.wake()

    def step_down_noticed(self, server: Server) -> None:
        """The watch reports an operator's step-down."""
        if self.alive and self.watched is server:
            if self.frozen:
                self._inbox.append((self.step_down_noticed, server))
                return
            now = self.now()
            self.lease.step_down_noticed(now)
            self._wake_for(now)

    # The requests of clients.

    def asked(self, version: tuple[int, int] | None) -> bool:
        """Record a request; returns true if the sidecar may hold it, because the version is still `version`."""
        now = self.now()
        self.lease.asked(now)
        self._wake_for(now)
        self.publish(now)  # so that only later changes end the wait of the request
        return self.alive and version == (self.boot, self._version)

    def grant(self, arrived: float) -> tuple[int | None, float | None, tuple[int, int]]:
        """Return the answer to the request that arrived at `arrived`: token, expires_in, version."""
        now = self.now()
        grant = self.lease.grant(arrived, now, self.client.name, self.client.token)
        self._wake_for(now)
        view = self.lease.view(now)
        return (view.token if grant is not None else None), grant, (self.boot, view.version)

    def resigned(self, arg: tuple[int | None, str, int | None]) -> None:
        """Handle `POST /resign` of a client, for one term (a token) or for the lease.

        The ticket belongs to a held request. The sidecar sees the end of this request after the resign.
        """
        if self.frozen:
            self._inbox.append((self.resigned, arg))
            return
        ticket, client, token = arg
        if not self.alive:
            self.client.resign_answered()
        else:
            now = self.now()
            steps_down = self.lease._term is not None and self.lease._term.step_down and not self.draining
            leads = self.lease.leads(now) or steps_down
            if self.lease.resigned(now, token, client):
                self._published_after = now + RESIGN_ANSWER_DELAY
                if leads:
                    self.world.oracle.resigns(self)
            self.publish(now)
            self.wake()
            if ticket is not None and self.alive:
                self.lease.unhold(ticket, self.now(), answered=False)
            self.world.at(self.true(now + RESIGN_ANSWER_DELAY) + TIMER, self._answer_resign, self.boot)

    def _answer_resign(self, boot: int) -> None:
        if self.frozen:
            self._inbox.append((self._answer_resign, boot))
        elif self.alive and boot == self.boot:
            self.client.resign_answered()

    def later(self, action: Callable[[Any], None], argument: object) -> None:
        """Keep an event until the frozen process thaws."""
        self._inbox.append((action, argument))

    # The calls to Redis.

    def _execute(self, call: Call) -> None:
        self._call = call
        self._attempt += 1
        self._sent = self._again = False
        if self.server is not None:
            self._send(call, self.server)
            return
        self._connect(call, call.give_up_at)

    def _make_again(self, call: Call) -> None:
        """Repeat the call, which was not executed, on a new connection."""
        self._attempt += 1
        self._again, self._sent = True, False
        self._disconnect()
        self._connect(call, call.give_up_at)

    def _open(self) -> None:
        """Connect before a call needs the connection."""
        timings, now = self.world.scenario.timings, self.now()
        self.asleep_until = -inf
        self._opening, self._sent = True, False
        self._timer += 1
        self._attempt += 1
        self._connect(None, now + timings.call_limit)

    def _connect(self, call: Call | None, until: float) -> None:
        """Connect before `until` (local time), then send the call that waits for the connection, if there is one."""
        world = self.world
        server = world.resolve(self.task)
        if self._unreachable(server) or server.thaw_at > world.now or self._loses():
            self._limit(until)
        elif not server.up:
            world.at(world.now + world.delay(), self._refused, self._attempt)
        else:
            self._limit(until)
            delay = 2 * world.delay() + self._lag()
            world.at(world.now + delay, self._greeted, (self._attempt, call, server, server.model.run_id, 0))

    def _greeted(self, request: Greeting) -> None:
        """The connection is established, and the server has answered TIME."""
        attempt, call, server, run_id, _ = request
        if attempt != self._attempt:
            return
        if self.frozen:
            self._inbox.append((self._greeted, request))
            return
        if not server.up or server.model.run_id != run_id:
            self._refused(attempt)
            return
        self.server, self._offset = server, 0
        self._connections += 1
        self._connection.observe(server.set_clock(self.world.now), self.now())
        if call is not None:
            self._send(call, server)
            return
        self._opening = False
        self._attempt += 1
        self.step()

    def _send(self, call: Call, server: Server) -> None:
        world = self.world
        if not self.assured(call, server):
            self._refused(self._attempt)
            return
        self._sent = True
        if self.ambush is not None:
            world.at(world.now, self.ambush, self)
            self.ambush = None
        if call.give_up_at <= self.now():
            self._limit(call.give_up_at)  # no time is left for a reply
        deadline = self._connection.at(call.give_up_at, call.sent_at)
        request = (self._attempt, call, server, server.model.run_id, deadline)
        if self.snare is not None and self.snare(self, request):
            self._limit(call.give_up_at)
            return
        if self.trouble is None and not self.cut:
            world.soon(world.now + world.delay(), self.arrive, request)
            return
        self._limit(call.give_up_at)
        if self._unreachable(server) or self._loses():
            world.count("request lost")
            return
        delay = self._lag()
        world.at(world.now + world.delay() + delay, self.arrive, request)
        if self._loses():
            world.count("request doubled")
            world.at(world.now + world.delay() + self._lag() + delay, self.arrive, request)

    def assured(self, call: Call, server: Server) -> bool:
        """Return false if the call is an acquire and the sentinels name another server at this moment."""
        world = self.world
        return not world.scenario.late_demotion or call.kind is not Kind.ACQUIRE or server is world.primary

    def arrive(self, request: Request) -> None:
        """Execute the request at the server, even if the sender no longer waits."""
        attempt, call, server, run_id, deadline = request
        world = self.world
        current = attempt == self._attempt
        if server.thaw_at > world.now:
            if current:
                self._limit(call.give_up_at)
            world.at(server.thaw_at + world.delay(), self.arrive, request)
            return
        if not server.up or server.model.run_id != run_id:
            if current:
                world.at(world.now + world.delay(), self._reset, attempt)
            return
        if self._unreachable(server):
            if current:
                self._limit(call.give_up_at)
            return
        if server.error is not None or server.refusals:
            server.refusals = max(0, server.refusals - 1)
            if current:
                refusal = self._broke_off if server.error == FROM_INSIDE else self._erred
                world.at(world.now + world.delay(), refusal, attempt)
            return
        if not current:
            world.count("late request")
        answer, watches = self._evaluate(server, call, deadline)
        if not current:
            return
        scenario = world.scenario
        delay = world.delay()
        confirmed = True
        if scenario.min_replicas:
            confirmed = server.confirms(scenario.min_replicas, self._offset)
            delay += 0.0 if confirmed else scenario.timings.call_limit / 2
        reply = (attempt, call, answer, confirmed, watches)
        if self.trouble is None:
            if delay > scenario.timings.call_limit / 3:
                self._limit(call.give_up_at)
            world.soon(world.now + delay, self._replied, reply)
            return
        self._limit(call.give_up_at)  # the network may have become bad since the request was sent
        if self._loses():
            world.count("reply lost")
        else:
            world.at(world.now + delay + self._lag(), self._replied, reply)

    def _evaluate(self, server: Server, call: Call, deadline: int) -> tuple[Answer, tuple[int, int] | None]:
        world, model, instance = self.world, server.model, self.instance
        server.set_clock(world.now)
        model.watches = watches = world.scenario.watches(*server.count_watches())
        touched, published, relayed, offset = model.touched, model.published, model.relayed, model.offset
        guarding, kind = world.scenario.guard, call.kind
        replicated = world.scenario.min_replicas > 0
        if kind is Kind.ACQUIRE:
            answer = model.acquire(instance, self._ttl_ms, deadline, guarding, call.tenure, replicated)
            if answer.outcome is Outcome.ACQUIRED:
                world.oracle.won(self, answer.token, call.sent_at)
        elif kind is Kind.RENEW:
            term = call.token, call.tenure
            answer = model.renew(instance, self._ttl_ms, deadline, guarding, *term, self._floor, replicated)
        elif kind is Kind.RELAY:
            answer = model.relay(instance, guarding)
        else:
            answer = model.release(instance, self._ttl_ms, deadline, guarding, call.token, call.tenure)
            if answer.outcome is Outcome.RELEASED:
                world.oracle.released(self, answer.token)
        if world.trace is not None:
            world.record(
                f"{instance} {kind}({call.token or ''}) -> {answer.outcome} {answer.token} left {answer.left} ms"
            )
        if model.offset != offset:
            self._offset = model.offset
        if model.touched != touched:
            world.changed(server, released=model.published != published)
        if model.relayed != relayed:
            world.relayed(server)
        return answer, watches

    def _replied(self, arg: tuple[int, Call, Answer, bool, tuple[int, int] | None]) -> None:
        attempt, call, answer, confirmed, watches = arg
        if attempt != self._attempt:
            return
        if self.frozen:
            self._inbox.append((self._replied, arg))
            return
        now = self.world.now * self.rate + self.clock
        self._connection.observe(answer.time, now)
        self._attempt += 1
        self._call = None
        outcome = answer.outcome if confirmed or answer.outcome not in WON else Outcome.UNCONFIRMED
        left, token = answer.left, answer.token
        reply = Reply(
            outcome,
            answer.holder,
            token if isinstance(token, int) else None,
            left / 1000 if left >= 0 else None,
            answer.wait / 1000,
            answer.tenure or "-",
            *((None, None) if watches is None or outcome not in COUNTING else (sum(watches), watches[0])),
        )
        lease, client = self.lease, self.client
        self._reconnects.reset()
        if outcome is not Outcome.LATE:
            self.answered_at = self.world.now
        if client.grant is not None and (
            outcome is not Outcome.RENEWED or lease.remaining(now) < self.world.near_deadline
        ):
            client.sync()
        lease.replied(call, reply, now)
        if lease.watches_directly is not self.watches_directly:
            self.choose_watch()
        if outcome is Outcome.STEPPING_DOWN:
            self.world.oracle.steps_down(self, reply.token)
        if outcome is not Outcome.RENEWED:
            client.schedule_end_of_work()
        self.step()  # `step` publishes

    def _limit(self, until: float) -> None:
        """Schedule the timeout of the call or of the attempt to connect at `until` (local time)."""
        if 0 < (left := self.lease.remaining(self.now())) < until - self.now():
            self.world.at(self.true(self.now() + left) + TIMER, self._term_ends, self.boot)
        self.world.at(max(self.true(until), self.world.now) + TIMER, self._time_out, self._attempt)

    def _term_ends(self, boot: int) -> None:
        """Like `Candidate.hold`, answer the held request at the end of the term, even if the loop is blocked."""
        if self.frozen:
            self._inbox.append((self._term_ends, boot))
        elif self.alive and boot == self.boot and self.client.held and not self.lease.leads(self.now()):
            self.client.sync()
            if self.client.held:
                self.client.release(answered=True)

    def _time_out(self, attempt: int) -> None:
        if attempt == self._attempt and (self._call is not None or self._opening):
            self._failed(self._time_out, attempt, may_execute=self._sent)

    def _refused(self, attempt: int) -> None:
        """No connection to the right server could be made."""
        if attempt == self._attempt:
            self._not_executed(self._refused, attempt)

    def _reset(self, attempt: int) -> None:
        if attempt == self._attempt:
            self._failed(self._reset, attempt, may_execute=True)

    def _erred(self, attempt: int) -> None:
        """The server refused to run the script."""
        if attempt == self._attempt:
            self._not_executed(self._erred, attempt)

    def _broke_off(self, attempt: int) -> None:
        """A command of the script failed."""
        if attempt == self._attempt:
            self._failed(self._broke_off, attempt, may_execute=False)

    def _not_executed(self, again: Callable[[int], None], attempt: int) -> None:
        call = self._call
        if self.frozen or call is None or self._again or self.now() >= call.give_up_at:
            self._failed(again, attempt, may_execute=False)
        else:
            self._make_again(call)

    def _failed(self, again: Callable[[int], None], attempt: int, *, may_execute: bool) -> None:
        if self.frozen:
            self._inbox.append((again, attempt))
            return
        call, self._call = self._call, None
        opening, self._opening = self._opening, False
        self._attempt += 1
        self._disconnect()
        if call is None:
            if opening:
                self._replace_connection()
                self.step()
            return
        self.client.sync()
        now = self.now()
        if self.world.trace is not None:
            self.world.record(f"{self.instance} {call.kind} failed, {'perhaps ' if may_execute else 'not '}delivered")
        self.lease.failed(call, now, may_execute=may_execute)
        self._replace_connection()
        self.publish(now)
        self.client.schedule_end_of_work()
        self.step()

    def _disconnect(self) -> None:
        self.server = None
        self._connection = ServerClock(self.world.scenario.timings.server_time_valid_for)  # for the next server

    def _replace_connection(self) -> None:
        self._open_at = self.now() + self._reconnects.next()

    def reset(self) -> None:
        """Break the connections on both ends."""
        self.unwatch()
        if self._call is not None and self._sent:
            self.world.at(self.world.now, self._reset, self._attempt)
        self.hung_up()

    def hung_up(self) -> None:
        """The server closes the connection, unless a call uses the connection."""
        if self._call is None and self.server is not None and not self._unreachable(self.server):
            self.world.at(self.world.now + self.world.delay(), self.ended, self._connections)

    def ended(self, connection: int) -> None:
        """The sidecar notices the end of the connection: the loop connects again, or the call in progress fails."""
        if not self.alive or self.server is None or connection != self._connections:
            return
        if self.frozen:
            self._inbox.append((self.ended, connection))
        elif self._call is not None:
            self._reset(self._attempt)
        else:
            self._disconnect()
            self._replace_connection()
            self.wake()

    def _unreachable(self, server: Server) -> bool:
        return self.cut or (server.island is not None and self.task not in server.island)

    def _loses(self) -> bool:
        return self.trouble is not None and self.world.random.random() < self.trouble

    def _lag(self) -> float:
        """The extra delay of a message, in seconds: 0, or at random up to twelve times the limit of a call."""
        if self.trouble is None or self.world.random.random() > 3 * self.trouble:
            return 0.0
        return self.world.scenario.timings.call_limit * self.world.random.random() ** 3 * 12

    # The watch.

    def watch(self, boot: int) -> None:
        """Connect the watch, or try again later."""
        world = self.world
        if not self.alive or boot != self.boot or self.watched is not None or world.scenario.watch == "off":
            return
        server = world.resolve(self.task)
        if self._unreachable(server) or not server.up or server.thaw_at > world.now or self._loses():
            world.at(
                world.now + world.scenario.timings.call_limit / 2 * world.random.uniform(0.75, 1.25), self.watch, boot
            )
            return
        self.watched = server
        server.watchers.append(self)
        world.at(world.now + 3 * world.delay(), self.noticed, server)

    def choose_watch(self) -> None:
        """Replace the direct watch by a relayed one, or the other way round."""
        self.watches_directly = self.lease.watches_directly
        if self.watched is not None:
            self.watched.watchers.remove(self)
            self.watched = None
            self.world.at(self.world.now + 2 * self.world.delay(), self.watch, self.boot)

    def unwatch(self) -> None:
        """Break the connection of the watch; the watch connects again later."""
        if self.watched is not None:
            self.watched.watchers.remove(self)
            self.watched = None
            if self.alive:
                world = self.world
                world.at(world.now + world.scenario.timings.call_limit / 2, self.watch, self.boot)

    def hears(self) -> bool:
        """Whether a notice arrives."""
        return not (self.cut or self.deaf or self._loses())
