"""One simulated world: the queue of events, true time, the servers, the network and the tasks."""

from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from sidecar.protocol import Transition
from tests.simulation.candidate import Sidecar
from tests.simulation.client import Client
from tests.simulation.faults import Faults
from tests.simulation.oracles import Oracle, Violation
from tests.simulation.scenario import LIFETIMES, Scenario
from tests.simulation.server import EPOCH, Server
from tests.simulation.store import Tenure

STORY = 60
"""Maximum number of printed events: the last recorded events of a world."""
NESTED = 50
"""Number of consecutive events that bypass the queue; after more than this, the next event enters the queue."""
BUSY = 500
"""Maximum rounds of all election loops per ttl, on average over a world, not counting retries.

More rounds count as a violation, because a loop then runs without a pause.
"""
ROUNDS_OF_RETRY = 2
"""Rounds of a loop in an outage per retry: one begins the call, and one handles its failure."""
IDLE_LIMIT = 10.0
"""Seconds after which the simulated Postgres ends an idle transaction."""

Action = Callable[[Any], None]


class World:
    """The whole world, at the true time `now` in seconds.

    Args:
        scenario: the nature of the world.
        random: its random numbers.
        trace: keep the text of the recorded events; slow.
    """

    def __init__(self, scenario: Scenario, random: Random, *, trace: bool = False) -> None:
        self.scenario = scenario
        self.random = random
        self._share = random.random
        self.now = 0.0
        self.trace: deque[str] | None = deque() if trace else None
        self._queue: list[tuple[float, int, Action, Any]] = []
        self.events = 0
        self._nested = 0
        self._run_ids = 0
        self._instances = 0
        self.rounds = 0
        self.counts: Counter[str] = Counter()
        self.disturbances = 0
        timings = scenario.timings
        retries = scenario.tasks * timings.ttl / timings.retry
        self.most_rounds = LIFETIMES * (BUSY + ROUNDS_OF_RETRY * retries)
        self.heartbeat = timings.heartbeat
        self.poll = _poll(timings.grant_ttl)
        self.near_deadline = 2 * timings.grant_ttl + timings.call_limit
        self.primary = self.server(born=-1000.0)
        self.old: Server | None = None
        self.oracle = Oracle(self)
        self.sidecars = [
            Sidecar(self, task, rate, random.uniform(1e3, 1e6)) for task, rate in enumerate(scenario.task_rates)
        ]
        self.clients = [Client(self, sidecar) for sidecar in self.sidecars]
        for sidecar, client in zip(self.sidecars, self.clients, strict=True):
            sidecar.client = client
        self.faults = Faults(self)

    # Events.

    def at(self, when: float, action: Action, argument: Any = None) -> None:
        """Run `action(argument)` at `when`."""
        self.events = number = self.events + 1
        heappush(self._queue, (when, number, action, argument))

    def soon(self, when: float, action: Action, argument: Any) -> None:
        """Like `at`, but usually without the queue if no event is due before or at `when`.

        Call this only at the end of an action.
        """
        queue = self._queue
        if self._nested > NESTED or (queue and queue[0][0] <= when):
            self.events = number = self.events + 1
            heappush(queue, (when, number, action, argument))
        else:
            self.now = when
            self._nested += 1
            action(argument)

    def run(self) -> Violation | None:
        """Run to the end, or to the first violation."""
        for task, (sidecar, client) in enumerate(zip(self.sidecars, self.clients, strict=True)):
            self.at(task * 0.5, self._appears, (sidecar, client))
        self.faults.begin()
        end, queue = self.scenario.length, self._queue
        try:
            while queue:
                when, _, action, argument = heappop(queue)
                if when > end:
                    break
                self.now = when
                self._nested = 0
                action(argument)
            self.oracle.inspect()
        except Violation as violation:
            self.record(f"VIOLATION ({violation.law}): {violation}")
            return violation
        return None

    def _appears(self, task: tuple[Sidecar, Client]) -> None:
        sidecar, client = task
        sidecar.start(self.instance())
        client.start()

    # Parts of the world.

    def instance(self) -> str:
        """The id of a new task."""
        self._instances += 1
        return f"task-{self._instances}"

    def server(self, *, born: float) -> Server:
        """A new server process, started at the true time `born`."""
        self._run_ids += 1
        rate = self.scenario.server_rate
        server = Server(f"run{self._run_ids}", rate=rate, offset=EPOCH, born=born)
        server.model.late = int(self.scenario.late_demotion * 1000)
        return server

    def resolve(self, task: int) -> Server:
        """The server to which the name of Redis resolves for this task."""
        old = self.old
        if self.scenario.late_demotion:
            return self.primary  # a majority of the sentinels names this server
        return old if old is not None and old.island is not None and task in old.island else self.primary

    def delay(self) -> float:
        """The time that a message takes on a good network, in seconds."""
        return 2e-4 + 6e-4 * self._share()

    def changed(self, server: Server, *, released: bool) -> None:
        """The key was written: notify the direct watches."""
        if server.trap:
            server.trap -= 1
            if not server.trap:
                self.faults.last_write_executed(server)
        if released:
            self.faults.released()
        if not server.watchers or not (released or self.scenario.watch == "tracking"):
            return
        relay = released and server.model.asks_for_relays
        for sidecar in server.watchers:
            if sidecar.watches_directly and sidecar.hears():
                self.at(self.now + self.delay(), sidecar.relay_noticed if relay else sidecar.noticed, server)

    def relayed(self, server: Server) -> None:
        """A release or a relay notifies the relayed watches."""
        for sidecar in server.watchers:
            if not sidecar.watches_directly and sidecar.hears():
                self.at(self.now + self.delay(), sidecar.noticed, server)

    def step_down_published(self, server: Server) -> None:
        """Publish an operator's step-down to every direct watch."""
        for sidecar in server.watchers:
            if sidecar.watches_directly and sidecar.hears():
                self.at(self.now + self.delay(), sidecar.step_down_noticed, server)

    def drained(self, sidecar: Sidecar) -> None:
        """A sidecar has drained and exited: the platform restarts the sidecar or replaces its task."""
        self.faults.replace(sidecar)

    # Work.

    def work(self, client: Client) -> None:
        """Begin the work of a term: raise the fence, then write at random times."""
        self.at(self.now + 1e-3, self._write, (client, client.tenure))

    def _write(self, arg: tuple[Client, Tenure]) -> None:
        client, tenure = arg
        if client.tenure is not tenure or client.frozen:
            return
        client.sync()
        if client.until() > self.now:
            self.oracle.wrote(client, tenure, self.oracle.store.claim(tenure))
            self.at(self.now + self.random.expovariate(1 / self.scenario.timings.ttl), self._write, arg)

    def interrupt_write(self, client: Client) -> None:
        """A client freezes in the middle of a transaction, before or after it has read the fence."""
        tenure, store = client.tenure, self.oracle.store
        if tenure is None or self.random.random() < 0.3:
            return
        begun = self.random.random() < 0.5 and store.admits(tenure)
        if begun:
            store.share()
            self.at(self.now + IDLE_LIMIT, self._idles, state := [client, tenure, True])
            client.interrupted = state
        else:
            client.interrupted = [client, tenure, False]

    def _idles(self, state: list[Any]) -> None:
        """Postgres ends a transaction that has been idle for too long."""
        if state[2]:
            state[2] = None
            self.oracle.store.unshare()

    def resume_write(self, client: Client, *, alive: bool) -> None:
        """The client continues its transaction, or is killed during the transaction."""
        state, client.interrupted = client.interrupted, None
        if state is None:
            return
        _, tenure, begun = state
        store = self.oracle.store
        if begun:
            state[2] = None
            if alive:
                self.oracle.wrote(client, tenure, accepted=True)
            store.unshare()
        elif begun is False and alive:
            self.oracle.wrote(client, tenure, store.claim(tenure))

    # Records.

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def transition(self, sidecar: Sidecar, transition: Transition) -> None:
        if self.trace is not None:
            word = "LEADS" if transition.leads else "does not lead"
            self.record(f"{sidecar.instance} {word}, token {transition.token}, {transition.reason}")

    def record(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:12.4f}  {text}")


def _poll(grant: float) -> float:
    """Seconds between two requests of a leader: a third of the working time that remains after an answer."""
    poll = grant / 4
    for _ in range(50):
        left = grant - poll
        poll = (left - min(0.5, left / 4)) / 3
    return min(poll, grant / 2)
