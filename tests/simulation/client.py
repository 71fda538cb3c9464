"""A simulated client: it asks as `sidecar.client` does, and believes for as long as the production `Grant` allows.

The end of a held request is usually not an event in the queue. While nothing changes, the client asks many times, and
only the last answer matters, because each answer replaces the previous answer. `sync` catches up with the skipped
requests, about 1,400 in a simulated hour.
"""

from collections.abc import Callable
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from sidecar.client.leadership import TICK
from sidecar.client.sidecar_api import LIMIT, PAUSE, pause_before_retry, wait_and_limit
from sidecar.client.term import Grant
from tests.simulation.candidate import HANDLING, TIMER, Sidecar
from tests.simulation.store import Tenure

if TYPE_CHECKING:
    from tests.simulation.world import World

STOP_BEFORE = 0.5
ROUND = TIMER + HANDLING
"""Seconds that an `/is-leader` request takes in addition to the time for which it is held."""
NO_HURRY = 1e9
"""The remaining working time of a client without a grant, in seconds: in effect unlimited."""

Version = tuple[int, int]
HeardAnswer = tuple[int, float, float, int | None, float | None, Version, str]
"""An answer: number, sending time and arrival of the request; token, expires_in, version and instance id."""


class Client:
    """The client of one task, on the same clock as the sidecar.

    `running` is true while the client campaigns or works, `held` while the sidecar holds its `/is-leader` request.
    """

    __slots__ = (
        "_arrived",
        "_ask",
        "_asked_at",
        "_asks",
        "_awaits",
        "_check_at",
        "_clock",
        "_explicit",
        "_froze_at",
        "_gives_up_at",
        "_inbox",
        "_knocks",
        "_limit_at",
        "_looked_at",
        "_open",
        "_resigned_term",
        "_resigning",
        "_steady",
        "_stopping",
        "_ticket",
        "_trouble",
        "_version",
        "_wait",
        "believes",
        "deadline",
        "frozen",
        "grant",
        "held",
        "interrupted",
        "leaves",
        "life",
        "name",
        "ready_since",
        "running",
        "sidecar",
        "tenure",
        "token",
        "working",
        "world",
    )

    def __init__(self, world: "World", sidecar: Sidecar) -> None:
        self.world = world
        self.sidecar = sidecar
        self.running = self.frozen = self.held = False
        self.working = False
        """Whether the work runs; true also while the work is being stopped."""
        self.believes = False
        """Whether the client has a grant that no answer has ended; `until` also looks at the clock."""
        self.grant: Grant | None = None
        self.tenure: Tenure | None = None
        self.deadline = 0.0
        """The deadline of the last grant, in local time."""
        self.leaves = False
        self.interrupted: list[Any] | None = None
        """A transaction during which the client was frozen."""
        self.life = 0
        self.ready_since: float | None = None
        self._ask = 0
        self._asked_at = 0.0
        self._arrived = 0.0
        """The arrival of the `/is-leader` request at the sidecar, in local time."""
        self._wait = 0.0
        """Seconds for which the sidecar may hold the request."""
        self._steady = False
        """Whether the sidecar will hold the next request for the same time as this request."""
        self._looked_at = self._froze_at = 0.0
        """The local times of the last look at the clock (there is one every `TICK`) and of the last freeze."""
        self._check_at = inf
        """The true time of the next check whether the work must stop."""
        self._gives_up_at = 0.0
        """The local time at which the client stops waiting for the answer."""
        self._limit_at = 0.0
        """The local time at which the sidecar answers even without a change."""
        self._open = False
        """Whether the client waits for an answer."""
        self._ticket = 0
        self._explicit = False
        """Whether the end of the held request is an event of its own; otherwise `sync` computes it."""
        self._version: Version | None = None
        self._clock = 0.0
        self._stopping = False
        self._resigned_term: int | None = None
        self._resigning = False
        """Whether the client has sent a resign that is not answered yet."""
        self._awaits = -1
        """The value that `_ask` has while the client waits for the answer to its resign."""
        self._asks = False
        """Whether `ask` waits for the answer to the resign; if false, the next campaign waits for it."""
        self._trouble = False
        """Whether the last `/is-leader` request got no answer."""
        self._inbox: list[tuple[Callable[[Any], None], Any]] = []
        self.name = ""
        """The name that the process sends with its requests."""
        self.token: int | None = None
        """The token of the last term that the client was granted."""
        self._knocks = -1

    # The life of the process.

    def start(self) -> None:
        """Start the process, which campaigns."""
        if self.running:
            self.leaves = False
            return
        self.life += 1
        self.name = str(self.life)
        self.running, self.frozen, self.leaves = True, False, False
        self.ready_since = self.world.now
        self._inbox = []
        self._version = self.token = None
        self._resigning = self._trouble = False
        self.ask(self._ask)

    def kill(self) -> None:
        """End the process at once."""
        if self.running:
            self.sync()
            self._drop_question()
            if self.believes:
                self.world.oracle.ended(self)
            self.running = self.frozen = self.believes = self.working = self._stopping = False
            self.grant = self.tenure = None
            self.ready_since = None
            self._ask += 1
            self.life += 1
            self._inbox = []

    def leave(self) -> None:
        """Stop the work, resign, and do not campaign again."""
        if self.running and not self.frozen:
            self.leaves = True
            self.ready_since = None
            if self._stopping:
                return
            if self.grant is not None:
                self.stop()
            else:
                self._finished(self.life)

    def freeze(self) -> None:
        """Stop the process (SIGSTOP). A transaction may be under way, or about to begin."""
        self.sync()
        self.frozen, self._froze_at = True, self.sidecar.now()
        self.ready_since = None
        if self.until() > self.world.now:
            self.world.interrupt_write(self)
        if self.held:
            self.world.at(max(self.sidecar.true(self._limit_at), self.world.now) + TIMER, self._hold_ends, self._ask)

    def thaw(self) -> None:
        """Continue the process (SIGCONT)."""
        if not (self.running and self.frozen):
            return
        self.frozen = False
        self.ready_since = None if self._stopping or self.leaves else self.world.now
        inbox, self._inbox = self._inbox, []
        arrived = (self._hear, self._hears_of_resign, self._resigns_again, self._lost)
        inbox.sort(key=lambda item: item[0] not in arrived)  # an event loop sees arrivals before timers
        for action, argument in inbox:
            action(argument)
        if self.grant is not None and self._next_look() <= self.sidecar.now():
            self._looked_at = self.sidecar.now()
        self.schedule_end_of_work()
        if self.believes:
            self.world.oracle.resumed(self)

    # Belief.

    def until(self) -> float:
        """The true time until which the client believes that it leads; 0 if it does not."""
        if not self.believes or self.grant is None:
            return 0.0
        self._clock = self.sidecar.now()
        left = self.grant.remaining()
        return self.world.now + left / self.sidecar.rate if left > 0 else 0.0

    def _extend(self, grant: Grant, deadline: float, now: float) -> bool:
        self._clock = now
        if not grant.extend(deadline):
            return False
        self.deadline = deadline
        return True

    def _begin(self, heard: HeardAnswer) -> bool:
        _, sent_at, _, token, expires_in, _, instance = heard
        if token is None or expires_in is None:
            return False
        grant = Grant(lambda: self._clock, STOP_BEFORE)
        now = self.sidecar.now()
        self._extend(grant, sent_at + expires_in, now)
        if grant.working_time() <= 0:
            return False
        self.grant = grant
        self._looked_at, self._check_at = now, inf
        self.believes = self.working = True
        self.tenure = self.world.oracle.began(self, instance, token)
        self.token = token
        self.world.work(self)
        return True

    def stop(self, *, over: bool = True) -> None:
        """Stop the work, because the term is `over` or for another reason; the work ends at once or up to 2 s later."""
        if self._stopping:
            return
        self._stopping = True
        self._resigned_term = self.tenure.token if over and self.tenure is not None and not self.leaves else None
        self.ready_since = None
        self.sync()
        random = self.world.random
        takes = 0.0 if random.random() < 0.5 else random.random() ** 3 * 2
        if takes or random.random() < 0.5:
            self._drop_question()
        self._ask += 1
        self.world.at(self.world.now + takes, self._ended, self.life)

    def _ended(self, life: int) -> None:
        if life != self.life or not self._stopping:
            return
        if self.frozen:
            self._inbox.append((self._ended, life))
            return
        if self.believes:
            self.world.oracle.ended(self)
        self.believes = self.working = self._stopping = False
        self.grant = self.tenure = None
        self._finished(life)

    def _finished(self, life: int) -> None:
        """Resign, then campaign again or leave."""
        ticket = None
        if self.held and self.world.random.random() < 0.5:
            self.sync()
            self.held = False
            ticket = self._ticket  # the sidecar sees the end of the held request after the resign
        self._drop_question()
        self._ask += 1
        if self.leaves:
            self._resigned_term = None
        if self.sidecar.alive and not self._resigning:
            self._resigning = True
            self.world.at(self.world.now + HANDLING, self.sidecar.resigned, (ticket, self.name, self._resigned_term))
        self._version = None
        if self.leaves:
            self.running = self.leaves = False
            self.life += 1
            return
        self.ready_since = self.world.now
        self._awaits, self._asks = self._ask, False
        self.world.at(self.world.now + (LIMIT if self.sidecar.alive else 0.0), self._campaign, self._ask)

    def resign_answered(self) -> None:
        """The sidecar has answered the resign: the client may ask again."""
        self._resigning = False
        self.world.at(self.world.now + HANDLING, self._hears_of_resign, self._ask)

    def _hears_of_resign(self, number: int) -> None:
        """The answer to the resign arrives."""
        if number != self._ask or number != self._awaits:
            return
        if self.frozen:
            self._inbox.append((self._hears_of_resign, number))
        elif self._asks:
            self._ask += 1
            self._send(self._ask)
        else:
            self._campaign(number)

    def _campaign(self, number: int) -> None:
        """Ask after the answer to the resign or its time limit; pause first if the last request got no answer."""
        if number != self._ask or not self.running or self._stopping:
            return
        if self.frozen:
            self._inbox.append((self._campaign, number))
        elif self._trouble:
            self.world.at(self.world.now + self.world.random.uniform(*PAUSE), self.ask, number)
        else:
            self.ask(number)

    # The requests to `/is-leader`.

    def ask(self, number: int) -> None:
        """Ask the sidecar, but only after it has answered the last resign."""
        if number != self._ask or not self.running or self._stopping:
            return
        if self.frozen:
            self._inbox.append((self.ask, number))
            return
        if self.grant is not None and self._left() <= 0:  # the client was frozen; first it stops its work
            self.stop()
            return
        self._ask = number = number + 1
        if self._resigning:  # otherwise the sidecar could apply the resign to a new term
            self._awaits, self._asks = number, True
            self._gives_up_at = self.sidecar.now() + LIMIT
            self._mind_limit()
        else:
            self._send(number)

    def _send(self, number: int) -> None:
        sidecar = self.sidecar
        self._open, self._steady = True, self.grant is None
        self._asked_at = sidecar.now()
        self._choose_wait_and_limit(NO_HURRY if self.grant is None else self._left())
        if not sidecar.alive:
            self._retry()
        elif sidecar.frozen:
            self._mind_limit()
            sidecar.later(self._arrive, number)
        else:
            self._arrive(number)

    def _arrive(self, number: int) -> None:
        """The `/is-leader` request arrives at the sidecar."""
        sidecar = self.sidecar
        if number != self._ask or not sidecar.alive:
            return
        self._arrived = arrived = sidecar.now()
        asked = sidecar.asked(self._version)
        if not sidecar.lease.heard_from_redis():  # the sidecar has just started: Redis will reply soon
            self._ticket = sidecar.lease.hold()
            self.held = self._explicit = True
            limit = arrived + self.world.scenario.timings.call_limit
            self._limit_at = limit
            self.world.at(max(sidecar.true(limit), self.world.now) + TIMER, self._hold_ends, number)
            self._mind_limit()
        elif asked and (stands := sidecar.lease.answer_valid_for(arrived, self.name, self.token)) > 0:
            self._ticket = sidecar.lease.hold()
            self.held = True
            self._limit_at = arrived + self._wait
            self._explicit = arrived > self._asked_at
            if self.grant is None and stands < inf:  # the sidecar leads: its answer is valid for a limited time
                self._explicit = True
                self._limit_at = arrived + min(self._wait, stands)
            if self.grant is not None and self._wait < 0.8 * self.world.poll:  # a short grant: ask again earlier
                self._explicit = True
            if self._explicit:
                self.world.at(max(sidecar.true(self._limit_at), self.world.now) + TIMER, self._hold_ends, number)
            if self._limit_at > self._gives_up_at:  # the sidecar was frozen
                self._mind_limit()
        else:
            self._answer(arrived)

    def _choose_wait_and_limit(self, left: float) -> None:
        """Compute how long the sidecar may hold the request, and when the client gives up, as `Poll.next` does."""
        wait, limit = wait_and_limit(left, holds=self._version is not None)
        self._wait = round(wait, 3)
        self._gives_up_at = self._asked_at + limit

    def _mind_limit(self) -> None:
        """Schedule the end of the wait for an answer."""
        self.world.at(max(self.sidecar.true(self._gives_up_at), self.world.now) + TIMER, self._gave_up, self._ask)

    def _answer(self, arrived: float) -> None:
        token, expires_in, version = self.sidecar.grant(arrived)
        heard = (self._ask, self._asked_at, arrived, token, expires_in, version, self.sidecar.instance)
        self.world.at(self.world.now + HANDLING, self._hear, heard)

    def release(self, *, answered: bool) -> None:
        """The sidecar answers the held request."""
        if self.held:
            self.held = False
            sidecar = self.sidecar
            sidecar.lease.unhold(self._ticket, sidecar.now(), answered=answered)
            self._answer(self._arrived)

    def _hold_ends(self, number: int) -> None:
        """Answer the held request at its time limit, without a change. A frozen client reads the answer later."""
        if number == self._ask and self.held and (self.frozen or self._explicit):
            if self.sidecar.frozen:
                self.sidecar.later(self._hold_ends, number)
                return
            self.release(answered=True)
            if self.sidecar.lease.wake_at(self.sidecar.now()) < self.sidecar.asleep_until:
                self.sidecar.wake()

    def _hear(self, heard: HeardAnswer) -> None:
        if heard[0] != self._ask or not self.running:
            return
        if self.frozen:
            self._inbox.append((self._hear, heard))
            return
        if self.sidecar.now() >= self._gives_up_at:  # the client was frozen, and the time limit comes first
            self._retry()
            return
        _, sent_at, _, token, expires_in, version, instance = heard
        self._open, self._trouble = False, False
        self._version = version
        grant = self.grant
        if grant is not None and self.tenure is not None:
            if token is None or expires_in is None or (token, instance) != (self.tenure.token, self.tenure.holder):
                grant.end()
                self.believes = False
                self.world.oracle.ended(self)
                self.stop()
                return
            if not self._extend(grant, sent_at + expires_in, self.sidecar.now()):
                self.stop()
                return
        elif token is not None and not self._begin(heard):
            self._version = None
        self.ask(self._ask)

    def _retry(self) -> None:
        self._open, self._trouble = False, True
        self._version = None
        self._ask += 1  # later results of the old request are ignored
        if self.grant is None and not self.sidecar.alive:
            self._knocks = self._ask  # without a sidecar no request is simulated; `found_sidecar` asks again
            return
        pause = pause_before_retry(self._left(), self.world.random.uniform)
        self.world.at(self.world.now + pause, self.ask, self._ask)
        self.schedule_end_of_work()

    def found_sidecar(self) -> None:
        """The sidecar has started: it answers the next request."""
        if self._knocks == self._ask:
            random = self.world.random
            self.world.at(self.world.now + random.random() * random.uniform(*PAUSE), self.ask, self._ask)

    def _gave_up(self, number: int) -> None:
        """No answer came in time."""
        if number == self._ask and self.running and not self._stopping:
            if self.frozen:
                self._inbox.append((self._gave_up, number))
                return
            if self.held:
                self.sync()
            if self.sidecar.now() < self._gives_up_at:
                return  # this was the limit of an earlier request
            self._drop_question()
            if self._left() <= 0 and self._next_look() < self._gives_up_at:
                self.stop()  # the client was frozen, and first sees that its work must stop
            else:
                self._retry()

    def _next_look(self) -> float:
        """The local time at which the client would look at the clock next if it were not frozen."""
        looks = ceil((self._froze_at - self._looked_at) / TICK)
        stop_at = self.grant._stop_at if self.grant is not None else inf
        return min(self._looked_at + looks * TICK, stop_at)

    def _drop_question(self) -> None:
        """Close the connection; the sidecar notices this."""
        self._open = False
        if self.held:
            self.held = False
            sidecar = self.sidecar
            if sidecar.alive:
                if sidecar.frozen:
                    sidecar.later(self._seen_dropped, (self._ticket, sidecar.boot))
                else:
                    self.world.at(self.world.now + HANDLING, self._seen_dropped, (self._ticket, sidecar.boot))

    def _seen_dropped(self, arg: tuple[int, int]) -> None:
        ticket, boot = arg
        sidecar = self.sidecar
        if sidecar.alive and boot == sidecar.boot:
            if sidecar.frozen:
                sidecar.later(self._seen_dropped, arg)
                return
            now = sidecar.now()
            sidecar.lease.unhold(ticket, now, answered=False)
            if sidecar.lease.wake_at(now) < sidecar.asleep_until:
                sidecar.wake()

    def _left(self) -> float:
        """Seconds of work that the grant still allows; `NO_HURRY` without a grant."""
        if self.grant is None:
            return NO_HURRY
        self._clock = self.sidecar.now()
        return self.grant.working_time()

    # Events of the world.

    def sync(self) -> None:
        """Catch up with the requests that were answered and sent again since the last call of this method."""
        if not self.held or self.frozen or self._explicit or self.sidecar.frozen:
            return
        lease, grant, now = self.sidecar.lease, self.grant, self.sidecar.now()
        while (first := self._asked_at + (wait := self._wait) + ROUND) <= now:
            times = int((now - self._asked_at) / (wait + ROUND)) if self._steady else 1
            arrived = self._asked_at + (times - 1) * (wait + ROUND) if times > 1 else self._asked_at
            answered = arrived + wait + TIMER
            lease.asked(answered)
            self._asked_at = answered + HANDLING
            left = NO_HURRY
            if grant is None:  # a skipped answer must not grant the lease
                changed = self._version != (self.sidecar.boot, lease._version)
                assert changed or not lease.leads(answered), f"{self.sidecar.instance} leads and does not answer"
            else:
                expires_in = lease.grant(arrived, answered, self.name, self.token)
                self._clock, reserve = first, grant._reserve
                if expires_in is None or not grant.extend(arrived + expires_in):
                    self.world.at(self.world.now, self._check, (self.life, grant))
                else:
                    self.deadline = arrived + expires_in
                    if times > 1:
                        self._clock, grant._reserve = self._asked_at, reserve  # the skipped time is not part of a grant
                        grant.extend(self.deadline)
                left = grant.working_time()
            self._choose_wait_and_limit(left)
            self._steady = self._wait == wait
            self._arrived, self._limit_at = self._asked_at, self._asked_at + self._wait

    def schedule_end_of_work(self) -> None:
        """Schedule the end of the work, in case the grant is not extended."""
        if self.grant is not None and not self._stopping and not self.frozen:
            left = self._left()
            if left <= 0:
                self.stop()
            else:
                self._check_in(left, (self.life, self.grant))
        if self.held and self.sidecar.frozen:
            self._mind_limit()

    def _check_in(self, left: float, arg: tuple[int, Grant]) -> None:
        when = self.world.now + left / self.sidecar.rate + TIMER
        if when < self._check_at:  # an earlier check decides whether a later check is needed
            self._check_at = when
            self.world.at(when, self._check, arg)

    def _check(self, arg: tuple[int, Grant]) -> None:
        """Stop the work, unless its grant was extended after this check was scheduled."""
        life, grant = arg
        if life != self.life or grant is not self.grant:
            return
        self._check_at = inf
        if self._stopping or self.frozen:
            return
        self.sync()
        left = self._left()
        if left <= 0:
            self.stop()
        elif (
            not self.held
            or self.sidecar.frozen
            or self.sidecar.lease.remaining(self.sidecar.now()) < self.world.near_deadline
            or self.deadline <= self._asked_at + self._wait + ROUND  # a short grant, which ends before the next answer
        ):
            self._check_in(left, arg)

    def lost_sidecar(self) -> None:
        """The sidecar has ended: its connections are reset."""
        again = self._resigning and self.frozen
        self._resigning = self.held = False
        if again:
            self._inbox.append((self._resigns_again, self.life))
        elif self.running and not self._stopping:
            if self._awaits == self._ask:
                self._hears_of_resign(self._ask)
            elif self._open:
                self._lost(self._ask)

    def _resigns_again(self, life: int) -> None:
        """The resign was lost with the connection: the client sends it again, to the next sidecar on the port."""
        if self.sidecar.alive:
            self._resigning = True
            self.world.at(self.world.now + HANDLING, self.sidecar.resigned, (None, self.name, self._resigned_term))
        else:
            self._hears_of_resign(self._ask)

    def _lost(self, number: int) -> None:
        if number == self._ask and self.running and not self._stopping:
            if self.frozen:
                self._inbox.append((self._lost, number))
            else:
                self._retry()

    def sidecar_thawed(self) -> None:
        """The sidecar continues, and answers the held request if the wait is over and the client is not frozen."""
        if self.held and not self.frozen and self.sidecar.now() >= self._limit_at:
            self.release(answered=True)
