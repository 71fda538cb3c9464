"""The faults of a world. They begin at random times, some shortly after another, and most end some time later."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sidecar.protocol import Kind
from tests.simulation.redis_model import DAY, RedisModel
from tests.simulation.server import FROM_INSIDE, Server

if TYPE_CHECKING:
    from tests.simulation.candidate import Request, Sidecar
    from tests.simulation.client import Client
    from tests.simulation.world import World

CALM_END = 6
"""Length of the last part of a world, in ttls. No fault begins in this part."""


class Faults:
    """The faults of one world. `world.disturbances` counts the current faults during which no delay is judged."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.random = world.random
        self.ttl = world.scenario.timings.ttl
        self._kinds = list(world.scenario.faults)
        self._weights = list(world.scenario.faults.values())
        self._held_up: tuple[Sidecar, Request, float, bool] | None = None
        """A sidecar, its delayed call, the earliest time of the execution, and whether the call may have an effect."""
        self._server_busy = False
        self._stepped_at = -10 * self.ttl
        self._spare: tuple[str, int] | None = None  # run id and start of a former primary that is now the replica
        self._deploying: list[Sidecar] = []
        self._actions: dict[str, Callable[[], None]] = {
            "client pause": self._pause_client,
            "client crash": self._crash_client,
            "client leaves": self._client_leaves,
            "client starts over": self._client_starts_over,
            "client replaced": self._replace_client,
            "sidecar pause": self._pause_sidecar,
            "sidecar crash": self._crash_sidecar,
            "sidecar drain": self._drain_sidecar,
            "task pause": self._pause_task,
            "task kill": self._kill_task,
            "deploy": self._deploy,
            "bad network": self._bad_network,
            "cut off": self._cut_off,
            "connections reset": self._reset_connections,
            "deaf watch": self._deafen,
            "redis pause": self._pause_redis,
            "redis error": self._redis_errs,
            "redis restart": self._restart_redis,
            "redis restart empty": self._empty_redis,
            "failover": self._fail_over,
            "failover to a stale replica": self._fail_over_stale,
            "isolated old primary": self._isolate,
            "late demotion": self._demote_late,
            "late release": self._late_release,
            "late acquire": self._late_acquire,
            "acquire cut short": self._cut_acquire_short,
            "release lost": self._lose_release,
            "server clock step": self._step_clock,
            "server clock jump": self._jump_clock,
            "DISABLED": self._disable,
            "short DISABLED": self._disable_briefly,
            "PERSIST": self._persist,
            "DEL": self._delete,
            "wrong type": self._spoil_key,
            "bad fence": self._spoil_fence,
            "step-down": self._step_down,
        }

    def begin(self) -> None:
        """Schedule the first fault."""
        self.world.at(self.random.expovariate(1 / self.world.scenario.pace), self._strike)

    def _strike(self, _: None) -> None:
        world = self.world
        if world.now > world.scenario.length - CALM_END * self.ttl:
            return
        world.oracle.inspect()
        world.oracle.forget()
        kind = self.random.choices(self._kinds, self._weights)[0]
        world.record(f"-- {kind}")
        before = self._visible_effects()
        self._actions[kind]()
        if self._visible_effects() != before:
            world.count(kind)
        again = self.random.expovariate(1 / world.scenario.pace)
        if self.random.random() < 0.15:
            again *= 0.05  # faults come in groups
        world.at(world.now + again, self._strike)

    def _visible_effects(self) -> list[object]:
        """The state that shows whether a fault had an effect. A fault on a dead or frozen process has no effect."""
        world, server = self.world, self.world.primary
        traps = [trap for sidecar in world.sidecars for trap in (sidecar.ambush, sidecar.snare)]
        return [world.events, world.disturbances, server.offset, server.model.offset, *traps]

    def _duration(self) -> float:
        """The duration of a fault in seconds, drawn from ranges around the times of the protocol."""
        low, high = self.random.choice(((0.0, 0.2), (0.0, 0.2), (0.1, 1.0), (0.7, 1.5), (1.0, 2.5)))
        return self.ttl * self.random.uniform(low, high)

    def _disturb(self, seconds: float, end: Callable[[Any], None], argument: object = None) -> None:
        """Count a disturbance for this number of seconds, then call `end(argument)`."""
        self.world.disturbances += 1
        self.world.at(self.world.now + seconds, self._recover, (end, argument))

    def _recover(self, arg: tuple[Callable[[Any], None], object]) -> None:
        end, argument = arg
        end(argument)
        self.world.disturbances -= 1
        self._disturbed()

    def _disturbed(self) -> None:
        self.world.oracle.calm_since = self.world.now

    def _task(self) -> int:
        """A random task; usually the leader."""
        if self.random.random() < 0.6:
            for task, client in enumerate(self.world.clients):
                if client.believes:
                    return task
        return self.random.randrange(self.world.scenario.tasks)

    # Processes.

    def _pause_client(self) -> None:
        client = self.world.clients[self._task()]
        if client.running and not client.frozen:
            client.freeze()
            self._disturb(self._duration(), lambda life: self._thaw_client(client, life), client.life)

    def _thaw_client(self, client: "Client", life: int) -> None:
        if client.running and client.life == life:
            client.thaw()
            self.world.resume_write(client, alive=True)

    def _crash_client(self) -> None:
        client = self.world.clients[self._task()]
        if client.running:
            self.world.oracle.silent(client)
            client.kill()
            self.world.resume_write(client, alive=False)
            self.world.at(self.world.now + 0.1 + self._duration(), self._starts, client)

    def _client_leaves(self) -> None:
        """A client leaves, sometimes when a sidecar calls Redis. Sometimes another client leaves a few ms later."""
        client = self.world.clients[self._task()]
        if self.random.random() < 0.15:
            self.random.choice(self.world.sidecars).ambush = lambda _: self._leave(client)
            return
        self._leave(client)
        if self.random.random() < 0.15:
            other = self.random.choice(self.world.clients)
            self.world.at(self.world.now + 0.004 * self.random.random(), self._leave, other)

    def _client_starts_over(self) -> None:
        self._starts_over(self.world.clients[self._task()])

    def _starts_over(self, client: "Client") -> None:
        """The work returns: the client resigns and asks again."""
        if client.running and not client.frozen and client.believes:
            client.stop(over=False)

    def _replace_client(self) -> None:
        """A client dies while its resign waits in a frozen sidecar; its successor asks before the sidecar thaws."""
        task = self._task()
        sidecar, client = self.world.sidecars[task], self.world.clients[task]
        if not (sidecar.alive and client.running and client.believes) or sidecar.frozen or client.frozen:
            return
        self.world.oracle.forget()
        self._starts_over(client)
        sidecar.freeze()
        last = self._duration() / self.random.choice((1, 5))
        self._disturb(last, lambda boot: self._thaw_sidecar(sidecar, boot), sidecar.boot)
        self.world.at(self.world.now + last * self.random.uniform(0.1, 0.9), self._replaced, client)

    def _replaced(self, client: "Client") -> None:
        if client.running:
            client.kill()
            self.world.resume_write(client, alive=False)
        self._starts(client)

    def _leave(self, client: "Client") -> None:
        if client.running and not client.frozen:
            client.leave()
            self.world.at(self.world.now + 2.5 + self._duration(), self._starts, client)

    def _starts(self, client: "Client") -> None:
        if not any(client.sidecar is each for each in self._deploying):
            client.start()

    def _pause_sidecar(self) -> None:
        self._apply_now_or_after_next_call(self.world.sidecars[self._task()], self._freeze_sidecar)

    def _apply_now_or_after_next_call(self, sidecar: "Sidecar", action: "Callable[[Sidecar], None]") -> None:
        """Apply the fault now, or right after the sidecar's next call is sent."""
        if self.random.random() < 0.4:
            sidecar.ambush = action
            if self.random.random() < 0.3:  # then the next call is usually a release
                self._starts_over(sidecar.client)
        else:
            action(sidecar)

    def _freeze_sidecar(self, sidecar: "Sidecar") -> None:
        if sidecar.alive and not sidecar.frozen:
            self.world.oracle.forget()
            sidecar.freeze()
            self._disturb(self._duration(), lambda boot: self._thaw_sidecar(sidecar, boot), sidecar.boot)

    def _thaw_sidecar(self, sidecar: "Sidecar", boot: int) -> None:
        if sidecar.alive and sidecar.boot == boot:
            sidecar.thaw()

    def _pause_task(self) -> None:
        task = self._task()
        sidecar, client = self.world.sidecars[task], self.world.clients[task]
        if sidecar.alive and not sidecar.frozen and client.running and not client.frozen:
            client.freeze()
            sidecar.freeze()
            last = self._duration()
            self._disturb(last, lambda seconds: self._slept(sidecar, seconds), last)
            self._disturb(last, lambda boot: self._thaw_sidecar(sidecar, boot), sidecar.boot)
            self._disturb(last, lambda life: self._thaw_client(client, life), client.life)

    def _slept(self, sidecar: "Sidecar", seconds: float) -> None:
        """Do nothing when a suspended machine wakes: its clock, CLOCK_BOOTTIME, has advanced during the suspension."""

    def _crash_sidecar(self) -> None:
        self._apply_now_or_after_next_call(self.world.sidecars[self._task()], self._kill_sidecar)

    def _kill_sidecar(self, sidecar: "Sidecar") -> None:
        if sidecar.alive:
            self.world.oracle.forget()
            sidecar.kill()
            self.world.at(self.world.now + self._restart_time(), self._restarts, (sidecar, sidecar.boot))

    def _restart_time(self) -> float:
        return 0.05 + (self.random.random() * 5 if self.random.random() < 0.6 else self._duration())

    def _restarts(self, arg: tuple["Sidecar", int]) -> None:
        sidecar, boot = arg
        if not sidecar.alive and sidecar.boot == boot:
            sidecar.start(sidecar.instance)
            self.world.oracle.restarted(sidecar)
            if self.random.random() < 0.1:  # the platform stops the task just when its sidecar is back
                self.world.oracle.forget()
                self.world.at(self.world.now + 0.6 * self.random.random(), lambda _: sidecar.drain())

    def _drain_sidecar(self) -> None:
        self.world.sidecars[self._task()].drain()

    def _kill_task(self) -> None:
        task = self._task()
        sidecar, client = self.world.sidecars[task], self.world.clients[task]
        if sidecar.alive and client.running:
            self.world.oracle.lost(sidecar)
            client.kill()
            self.world.resume_write(client, alive=False)
            sidecar.kill()
            self.world.at(self.world.now + 1 + self._duration(), self._task_starts, (sidecar, sidecar.boot))

    def _task_starts(self, arg: tuple["Sidecar", int]) -> None:
        sidecar, boot = arg
        if not sidecar.alive and sidecar.boot == boot:
            sidecar.start(self.world.instance())
            sidecar.client.start()

    def _deploy(self) -> None:
        """For each task in turn, the client stops, then the sidecar stops, and then a new task starts."""
        if not self._deploying:
            self._deploying = list(self.world.sidecars)
            self._deploy_next(None)

    def _deploy_next(self, _: None) -> None:
        if self._deploying:
            sidecar = self._deploying[0]
            client = sidecar.client
            self.world.oracle.forget()
            if client.running and client.frozen:
                self.world.at(self.world.now + self.ttl / 3, self._deploy_next)
                return
            client.leave()
            together = self.random.random() < 0.3  # some platforms stop both containers at once
            self.world.at(self.world.now + (0.0 if together else 2.2), self._deploy_sidecar, sidecar)

    def _deploy_sidecar(self, sidecar: "Sidecar") -> None:
        if sidecar.alive:
            sidecar.drain()
        else:
            self.replace(sidecar)

    def replace(self, sidecar: "Sidecar") -> None:
        """A sidecar has exited: a deploy replaces its task, otherwise the sidecar is started again."""
        world = self.world
        world.oracle.forget()
        if self._deploying and self._deploying[0] is sidecar:
            sidecar.client.kill()
            self._deploying.pop(0)
            world.at(world.now + 0.5, self._task_starts, (sidecar, sidecar.boot))
            world.at(world.now + self.random.choice((0.6, 0.6, self.ttl)), self._deploy_next)
        else:
            world.at(world.now + self._restart_time(), self._restarts, (sidecar, sidecar.boot))

    # Single calls.

    def _late_release(self) -> None:
        """A leader's work ends, and the release arrives late, or twice, or is the last call of its sidecar."""
        client = self.world.clients[self._task()]
        client.sidecar.snare = self._delays_release
        self._starts_over(client)

    def _delays_release(self, sidecar: "Sidecar", request: "Request") -> bool:
        if request[1].kind is not Kind.RELEASE:
            return False
        sidecar.snare = None
        self._disturbed()
        late = self.random.random() * 1.2 * self.world.scenario.timings.call_limit
        self.world.at(self.world.now + late, sidecar.arrive, request)
        if self.random.random() < 0.4:
            return False
        if self.random.random() < 0.7:
            self.world.at(self.world.now, lambda _: self._kill_sidecar(sidecar))
        return True

    def _late_acquire(self) -> None:
        """An acquire is delayed until a later release of the lease; often the sender's client has left by then."""
        sidecar = self.random.choice(self.world.sidecars)
        sidecar.snare = self._holds_up

    def _holds_up(self, sidecar: "Sidecar", request: "Request") -> bool:
        if request[1].kind is not Kind.ACQUIRE:
            return False
        sidecar.snare, sidecar.started = None, self.world.now
        if self.world.scenario.large_fleet:  # the sidecar stands for several candidates, none of which relays now
            self._disturbed()
        self._held_up = (sidecar, request, self.world.now + 1.5 * self.world.scenario.timings.call_limit, False)
        if self.random.random() < 0.7:
            self._leave(sidecar.client)
        return True

    def released(self) -> None:
        """A candidate has just released the lease."""
        if self._held_up is not None and self.world.now > self._held_up[2]:
            sidecar, request, _, counts = self._held_up
            self._held_up = None
            if counts:  # the sender notices the effect at its next call, at the latest after a yield or a heartbeat
                self.world.oracle.forget()
            self.world.at(self.world.now + 1e-5, sidecar.arrive, request)

    def _lose_release(self) -> None:
        """A leader's client leaves, and the sidecar's connection breaks before the release arrives at the server."""
        client = self.world.clients[self._task()]
        client.sidecar.snare = self._loses_release
        self._leave(client)

    def _loses_release(self, sidecar: "Sidecar", request: "Request") -> bool:
        if request[1].kind is not Kind.RELEASE:
            return False
        sidecar.snare = None
        sidecar.reset()
        self.world.oracle.allow(1.3 * self.world.scenario.timings.retry)
        return True

    def _cut_acquire_short(self) -> None:
        """A leader's client starts over, and the connection of the next acquire breaks before the reply arrives."""
        for sidecar in self.world.sidecars:
            sidecar.snare = self._cuts_short
        self._starts_over(self.world.clients[self._task()])

    def _cuts_short(self, sidecar: "Sidecar", request: "Request") -> bool:
        """Delay or drop the acquire. The next attempt may win first; then the client leaves or the sidecar drains."""
        world = self.world
        if request[1].kind is not Kind.ACQUIRE or world.primary.model.value is not None:
            return False
        for each in world.sidecars:
            each.snare = None
        world.oracle.forget()
        sidecar.started = world.now
        sidecar.reset()
        if self.random.random() < 0.3:
            self._held_up = (sidecar, request, world.now, True)  # executes just after the release of the next term
            world.at(world.now + 1.35 * world.scenario.timings.retry, self._leave, sidecar.client)
        elif self.random.random() < 0.5:
            sidecar.snare = lambda _, later: self._overtakes(sidecar, request, later)
            again = 1.35 * world.scenario.timings.retry
            world.at(world.now + again, self._leave, sidecar.client)
        elif self.random.random() < 0.7:
            world.at(world.now + self.ttl * self.random.random(), self._drains, sidecar)
        return True

    def _overtakes(self, sidecar: "Sidecar", request: "Request", later: "Request") -> bool:
        """The delayed acquire executes just before the release of the term that the next acquire won."""
        if later[1].kind is Kind.RELEASE:
            sidecar.snare = None
            self.world.at(self.world.now, sidecar.arrive, request)
        return False

    def _drains(self, sidecar: "Sidecar") -> None:
        self.world.oracle.forget()
        sidecar.drain()

    # The network.

    def _bad_network(self) -> None:
        share = self.random.choice((0.02, 0.1, 0.3, 0.5))
        all_of_them = self.random.random() < 0.5
        sidecars = self.world.sidecars if all_of_them else [self.world.sidecars[self._task()]]
        for sidecar in sidecars:
            sidecar.trouble = share
        self._disturb(self._duration(), self._network_repairs, sidecars)

    def _network_repairs(self, sidecars: "list[Sidecar]") -> None:
        for sidecar in sidecars:
            sidecar.trouble = None

    def _cut_off(self) -> None:
        sidecar = self.world.sidecars[self._task()]
        if not sidecar.cut:
            sidecar.cut = True
            if self.random.random() < 0.3:  # the sidecar also freezes later, often near the end of its term
                later = self.ttl * self.random.uniform(0.3, 0.9)
                self.world.at(self.world.now + later, lambda _: self._freeze_sidecar(sidecar))
            self._disturb(self._duration(), self._network_restored, sidecar)

    def _network_restored(self, sidecar: "Sidecar") -> None:
        sidecar.cut = False

    def _reset_connections(self) -> None:
        for sidecar in self.world.sidecars:
            sidecar.reset()
        self._disturbed()

    def _deafen(self) -> None:
        sidecar = self.world.sidecars[self._task()]
        sidecar.deaf = True
        self._disturb(self._duration(), self._hears, sidecar)

    def _hears(self, sidecar: "Sidecar") -> None:
        sidecar.deaf = False
        sidecar.unwatch()

    # Redis.

    def _pause_redis(self) -> None:
        server, last = self.world.primary, self._duration()
        server.thaw_at = max(server.thaw_at, self.world.now + last)
        steps = self.random.random() < 0.3  # like the clock of a suspended machine
        self._disturb(last, (lambda _: self._step_clock()) if steps else self._nothing)

    def _nothing(self, _: None) -> None:
        pass

    def _redis_errs(self) -> None:
        server = self.world.primary
        if self.random.random() < 0.5:  # as at the end of a failover: a repeated call usually succeeds
            server.refusals += self.random.choice((1, 1, 2))
            self._disturbed()
        elif server.error is None:
            server.error = self.random.choice(("LOADING", FROM_INSIDE))
            self._disturb(self._duration(), self._errs_no_more, server)

    def _errs_no_more(self, server: Server) -> None:
        server.error = None

    def _restart_redis(self) -> None:
        self._stop_redis(empty=False)

    def _empty_redis(self) -> None:
        self._stop_redis(empty=True)

    def _stop_redis(self, *, empty: bool) -> None:
        if not self._server_busy:
            self._server_busy = True
            server = self.world.primary
            self._die(server)
            self._disturb(0.05 + self._duration() / 2, self._starts_again, (server, empty))

    def _die(self, server: Server) -> None:
        server.up = False
        for sidecar in list(server.watchers):
            sidecar.unwatch()
        if self.random.random() < 0.7:  # otherwise the machine also fails, and closes no connection
            for sidecar in self.world.sidecars:
                if sidecar.server is server:
                    sidecar.hung_up()

    def _starts_again(self, arg: tuple[Server, bool]) -> None:
        server, empty = arg
        fresh = self.world.server(born=self.world.now)
        model = fresh.model
        model.started = int(self.world.now * server.rate + server.offset)
        if not empty:
            model.copy_data(server.model)
        server.model = model
        server.up, server.thaw_at, server.error = True, 0.0, None
        server.repair_link()
        self._server_busy = False

    def _fail_over(self) -> None:
        if not self._server_busy:
            self._server_busy = True
            self.world.disturbances += 1
            self._primary_dies(self.world.primary)

    def _fail_over_stale(self) -> None:
        """Replication stops; some time later, or soon after one of the next writes, the primary dies."""
        if self._server_busy:
            return
        self._server_busy = True
        world, server = self.world, self.world.primary
        world.disturbances += 1
        server.break_link()
        if self.random.random() < 0.5:
            server.replicas = 0
        latest = self.ttl * self.random.uniform(0.0, 1.2)
        if self.random.random() < 0.6:
            server.trap = self.random.choice((1, 1, 2, 3))
            latest = 1.5 * self.ttl
        if self.random.random() < 0.4:
            for client in world.clients:
                if client.believes and not client.frozen:
                    client.leave()
                    world.at(world.now + 2.5 + self._duration(), self._starts, client)
        world.at(world.now + latest, self._primary_dies, server)

    def last_write_executed(self, server: Server) -> None:
        """The write after which the primary dies has been executed."""
        self.world.at(self.world.now + self.random.choice((0.0, 0.001, 0.1, 1.0)), self._primary_dies, server)

    def _primary_dies(self, server: Server) -> None:
        if server.up and server is self.world.primary:
            self._die(server)
            server.trap = 0
            self.world.at(self.world.now + self._promotion_time(), self._promoted, (server, None))

    def _promotion_time(self) -> float:
        return self.random.choice((0.05, 0.5, 2.0, self.ttl / 3))

    def _promoted(self, arg: tuple[Server, float | None]) -> None:
        """The replica now serves under the primary's name; an isolated old primary also serves for `arg[1]` seconds."""
        old, isolated_for = arg
        world = self.world
        born = world.now - self.random.choice((0.5, self.ttl, 100 * self.ttl))
        new = world.server(born=born)
        new.offset = old.offset + self._shift()
        new.model.started = int(born * new.rate + new.offset)
        if self._spare is not None and self.random.random() < 0.6:  # back to the previous primary's process
            new.model.run_id, new.model.started = self._spare
        new.model.promoted = True
        self._spare = (old.model.run_id, old.model.started) if self.random.random() < 0.7 else None
        new.model.copy_data(old.replica if old.replica is not None else old.model)
        new.replicas = 0
        world.primary = new
        world.record(f"   promoted with {new.model.value}, token {new.model.fence.token}")
        if isolated_for is not None:
            world.old = old
            world.at(world.now + isolated_for, self._old_ends, old)
        if "step-down" in self._kinds and self.random.random() < 0.5:  # the operator wants another leader now
            later = self.random.choice((0.0, 0.0, self._duration()))
            world.at(world.now + later, lambda _: self._asks_to_step_down())
        world.at(world.now + self.random.uniform(0.1, self.ttl / 2), self._replica_joins, (new, isolated_for is None))

    def _replica_joins(self, arg: tuple[Server, bool]) -> None:
        server, over = arg
        server.replicas = 1
        if over:
            self._server_change_ends()

    def _server_change_ends(self) -> None:
        self._server_busy = False
        self.world.disturbances -= 1
        self._disturbed()

    def _isolate(self) -> None:
        """The primary and some tasks are cut off from the other tasks; the replica is promoted for the other tasks."""
        if self._server_busy:
            return
        promotion, last = self._promotion_time(), self._duration() + self.ttl * self.random.choice((0.0, 1.0, 3.0))
        if not self.world.scenario.min_replicas:
            self.world.oracle.exempt(promotion + last + 1.3 * self.ttl)
        self._promote_beside_old_primary(promotion, last)

    def _demote_late(self) -> None:
        """The replica is promoted; some tasks still use the old primary, for less time than the guard waits."""
        if not self._server_busy:
            last = self.world.scenario.late_demotion * self.random.choice((0.1, 0.5, 0.95))
            self._promote_beside_old_primary(self._promotion_time(), last)

    def _promote_beside_old_primary(self, promotion: float, last: float) -> None:
        """The replication stops and the replica is promoted; some tasks use the old primary for `last` more seconds."""
        self._server_busy = True
        world, old = self.world, self.world.primary
        world.disturbances += 1
        old.break_link()
        tasks = list(range(world.scenario.tasks))
        self.random.shuffle(tasks)
        old.island = sorted(tasks[: self.random.randint(1, len(tasks))])
        world.old = old
        for sidecar in list(old.watchers):
            if sidecar.task not in old.island:
                sidecar.unwatch()
        if self.random.random() < 0.5:
            old.replicas = 0
        else:  # the replica's connection is half open
            world.at(world.now + 60, self._sees_no_replica, old)
        world.at(world.now + promotion, self._promoted, (old, last))

    def _sees_no_replica(self, server: Server) -> None:
        if not server.linked:
            server.replicas = 0

    def _old_ends(self, old: Server) -> None:
        self._die(old)
        old.island = None
        self.world.old = None
        self._server_change_ends()

    def _shift(self) -> float:
        """Seconds by which the server's clock steps, at most margin minus drift; 0 within 1.3 ttls after a step."""
        if self.world.now - self._stepped_at < 1.3 * self.ttl:
            return 0.0
        self._stepped_at = self.world.now
        scenario = self.world.scenario
        believed = (1 - scenario.timings.margin / self.ttl) * scenario.server_rate / min(scenario.task_rates)
        return 0.98 * self.ttl * (1 - believed) * self.random.choice((0.0, 0.1, 0.5, 1.0)) * self.random.choice((-1, 1))

    def _step_clock(self) -> None:
        self.world.primary.offset += self._shift()
        self._disturbed()

    def _jump_clock(self) -> None:
        jump = self.ttl * self.random.uniform(-1.5, 1.5)
        self.world.primary.offset += jump
        self.world.oracle.exempt(2 * abs(jump) + 1.3 * self.ttl)
        self._disturbed()

    # The operator.

    def _run_operator_command(self, action: Callable[[RedisModel], None]) -> None:
        server = self.world.primary
        if server.up:
            server.set_clock(self.world.now)
            action(server.model)
            self.world.changed(server, released=False)
        self._disturbed()

    def _disable(self) -> None:
        last = self.ttl * self.random.uniform(1.05, 3)
        self.world.oracle.disabled()
        self._run_operator_command(lambda model: model.set("DISABLED", int(last * 1000)))
        self._disturb(1.05 * last, self._nothing)

    def _disable_briefly(self) -> None:
        last = self.ttl * self.random.uniform(0.05, 1)
        self.world.oracle.exempt(1.3 * self.ttl)
        self.world.oracle.disabled()
        self._run_operator_command(lambda model: model.set("disabled", int(last * 1000)))
        self._disturb(1.05 * last, self._nothing)

    def _persist(self) -> None:
        self._run_operator_command(RedisModel.persist)
        self._disturb(2 * self.ttl, self._delete_key_without_ttl)

    def _delete_key_without_ttl(self, _: None) -> None:
        """An operator deletes the key if it has no TTL, because such a key never expires."""
        if self.world.primary.model.value is not None and self.world.primary.model.expires is None:
            self._delete()

    def _delete(self) -> None:
        self.world.oracle.exempt(1.3 * self.ttl)
        self._run_operator_command(RedisModel.delete)

    def _step_down(self) -> None:
        """An operator asks the leader to step down; sometimes just when a sidecar calls Redis."""
        if self.random.random() < 0.3:
            self.world.sidecars[self._task()].ambush = lambda _: self._asks_to_step_down()
        else:
            self._asks_to_step_down()

    def _asks_to_step_down(self) -> None:
        world, server = self.world, self.world.primary
        if not server.up:
            return
        server.set_clock(world.now)
        token = server.model.step_down()
        if token is not None:
            world.oracle.asked_to_step_down(token)
            world.step_down_published(server)

    def _spoil_key(self) -> None:
        last = self._duration()
        self.world.oracle.exempt(last + 1.3 * self.ttl)
        self._run_operator_command(RedisModel.spoil_key)
        self._disturb(last, lambda _: self._delete())

    def _spoil_fence(self) -> None:
        """A spoiled fence allows no new term; the operator repairs the fence while the lease is disabled."""
        token = self.random.choice(("abc", self.world.primary.set_clock(self.world.now) + 2 * DAY))
        self._run_operator_command(lambda model: model.spoil_fence(token))
        self.world.oracle.fence_changed()
        self._disturb(self._duration(), self._disable_to_repair)

    def _disable_to_repair(self, _: None) -> None:
        self.world.oracle.disabled()
        self._run_operator_command(lambda model: model.set("DISABLED", int(3 * self.ttl * 1000)))
        self._disturb(1.3 * self.ttl, self._repair_fence)

    def _repair_fence(self, _: None) -> None:
        model = self.world.primary.model
        self.world.primary.set_clock(self.world.now)
        if model.repair_fence():
            self.world.oracle.fence_changed()
            self._run_operator_command(RedisModel.delete)
        elif model.fence_needs_repairing:
            self._disable_to_repair(None)  # another operator has enabled the lease in the meantime
