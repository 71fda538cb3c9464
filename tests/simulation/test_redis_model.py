"""The simulator's model gives the same replies as the real scripts on each available version of Redis.

The tests call both side by side: on a server that was always a primary, on a promoted replica, and on a server that has
just started. After each step they compare the reply, the fence, the messages of a watch, and whether data was written.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest
from redis import Redis
from redis.connection import Connection

from ops.local.servers import RedisServer
from sidecar.protocol import Outcome, Reply
from sidecar.redis.replies import parse
from sidecar.redis.script_calls import SCRIPTS, fence_of
from sidecar.scripts import script
from tests.faults.replication import ARGUMENTS, in_step, promote
from tests.sidecar.conftest import BINARIES, client_of, command
from tests.simulation.redis_model import DAY, Answer, Fence, RedisModel

TTL = 2500
KEY = "portfolio:model:leader"
FENCE = fence_of(KEY)
CHANNEL = f"{KEY}:changed"
STEPS = 400
LATE = 3000
"""Milliseconds for which an old primary may still serve after a promotion."""
FENCE_SCRIPT = script("call", "prelude", "fence")
IDENTITIES: list[dict[str, str | None]] = [
    {"run_id": "another", "replid": "stint"},
    {"run_id": "another"},
    {"replid": "stint"},
    {"replid": None},
    {"run_id": None, "replid": None},
]
"""Values of the fence's fields for the server that last acted on the lease; None deletes the field."""


@pytest.fixture(
    scope="module", params=[(binary, life) for binary in sorted(BINARIES) for life in ("born a primary", "promoted")]
)
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that has run for longer than the guard's wait without `LATE`."""
    binary, life = request.param
    folder = tmp_path_factory.mktemp("redis")
    with ExitStack() as open_:
        server = open_.enter_context(RedisServer(folder / "1", binary=BINARIES[binary], arguments=ARGUMENTS))
        if life == "promoted":
            replicates = (*ARGUMENTS, "--replicaof", "127.0.0.1", str(server.port))
            replica = open_.enter_context(RedisServer(folder / "2", binary=BINARIES[binary], arguments=replicates))
            while not in_step(server, replica):
                time.sleep(0.02)
            promote(replica)
            server = replica
        with client_of(server) as redis:
            while redis.info("server")["uptime_in_seconds"] * 1000 < TTL + 1500:
                time.sleep(0.1)
        yield server


class Watch:
    """A watcher of the key, like `sidecar.redis.watch`."""

    def __init__(self, port: int) -> None:
        self._connection = Connection(port=port, decode_responses=True, protocol=2)  # type: ignore[no-untyped-call]  # untyped in redis-py
        own_id = self._ask("CLIENT", "ID")
        self._ask("CLIENT", "TRACKING", "ON", "REDIRECT", str(own_id), "BCAST", "PREFIX", KEY)
        for channel in ("__redis__:invalidate", CHANNEL):
            self._ask("SUBSCRIBE", channel)

    def heard(self) -> Counter[str]:
        """The number of messages on each channel since the last call of this method."""
        self._connection.send_command("PING")  # type: ignore[no-untyped-call]
        heard = Counter[str]()
        while (message := self._connection.read_response())[0] == "message":
            heard[message[1]] += 1
        return heard

    def close(self) -> None:
        self._connection.disconnect()  # type: ignore[no-untyped-call]

    def _ask(self, *words: str | int) -> object:
        self._connection.send_command(*words)  # type: ignore[no-untyped-call]
        answer: object = self._connection.read_response()
        return answer


class Both:
    """A real server and the model, driven side by side."""

    def __init__(self, server: RedisServer, random: Random) -> None:
        self.real = Redis.from_url(server.url, decode_responses=True)
        command(self.real, "ACL", "SETUSER", "managed", "on", "nopass", "~*", "&*", "+@all", "-info")
        self.managed = Redis.from_url(server.url, decode_responses=True, username="managed", password="")
        self.watch = Watch(server.port)
        self.random = random
        self.real.delete(KEY, FENCE)
        info = self.real.info("server") | self.real.info("replication")
        self.model = RedisModel(
            info["run_id"],
            started=info["server_time_usec"] // 1_000_000 - info["uptime_in_seconds"],
            replid=info["master_replid"],
            promoted=info["master_replid2"] != 0,  # redis-py turns forty zeros into a number
        )
        self.terms: list[tuple[str, int, str]] = []
        self.seen: Counter[Outcome] = Counter()

    def close(self) -> None:
        self.real.delete(KEY, FENCE)
        for each in (self.watch, self.managed, self.real):
            each.close()

    def now(self) -> int:
        """The server's time in µs."""
        seconds, microseconds = self.real.time()
        return int(seconds) * 1_000_000 + int(microseconds)

    def type(self, *words: str | int) -> None:
        """Send a command to the real server, and set the model's clock to the server's time."""
        with self.real.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.execute_command(*words)  # type: ignore[no-untyped-call]
            (seconds, microseconds), _ = pipeline.execute()
        self.model.now = int(seconds) * 1_000_000 + int(microseconds)

    def written(self) -> int:
        """The number of changes of the data that the real server counts."""
        return int(self.real.info("persistence")["rdb_changes_since_last_save"])

    def step(self) -> None:
        """Make a random call to both, and compare the replies and the effects."""
        model = self.model
        self.watch.heard()
        written, touched, published, offset = self.written(), model.touched, model.published, model.offset
        expires = model.expires
        what, reply, answer = self.call()
        self.seen[reply.outcome] += 1
        token = answer.token if isinstance(answer.token, int) else None
        assert (reply.outcome, reply.token, reply.holder) == (answer.outcome, token, answer.holder), what
        assert reply.tenure == (answer.tenure or "-"), what
        assert abs(1000 * (reply.ttl if reply.ttl is not None else -0.001) - max(answer.left, -1)) <= 100, what
        assert abs(1000 * reply.wait - answer.wait) <= 2, what
        heard = self.watch.heard()
        assert heard[CHANNEL] == model.published - published, what
        if expires is None or model.now // 1000 < expires:  # the simulator needs no report of an expiry
            assert (heard["__redis__:invalidate"] > 0) == (model.touched > touched), what
        assert (self.written() > written) == (model.offset > offset), what
        self.compare_fence(what)
        if reply.outcome in (Outcome.BAD_FENCE, Outcome.FENCE_AHEAD) and self.random.random() < 0.5:
            self.repair()
        elif reply.outcome in (Outcome.WRONG_TYPE, Outcome.BAD_FENCE, Outcome.FENCE_AHEAD):
            self.type("DEL", KEY, FENCE)
            model.delete()
            model.fence, model.fence_is_hash = Fence(), True

    def repair(self) -> None:
        """Repair the fence as the operator's command does: look, disable the lease, repair the state that was seen."""
        model = self.model
        self.delete()
        assert not model.repair_fence()
        _, problem, *_ = seen = self.fence_script("")
        state = seen[8]
        assert (problem != "none") == model.fence_needs_repairing
        assert self.fence_script(state)[0] == "not_disabled"
        self.type("SET", KEY, "DISABLED")
        model.set("DISABLED", None)
        done, _, _, _, now, *_ = self.fence_script(state)
        model.now = int(now)
        assert (done, model.repair_fence()) == ("repaired", True)
        self.compare_fence("repair")
        self.delete()

    def fence_script(self, state: str) -> list[str]:
        answer: list[str] = self.real.eval(FENCE_SCRIPT, 2, KEY, FENCE, "", TTL, 2**53, 0, "", "", "", state)
        return answer

    def compare_fence(self, what: str) -> None:
        if self.model.fence_is_hash:
            fence = {name: str(value) for name, value in asdict(self.model.fence).items() if value is not None}
            assert self.real.hgetall(FENCE) == fence, what

    def call(self) -> tuple[str, Reply, Answer]:
        random, model = self.random, self.model
        kind = random.choice(("acquire", "acquire", "renew", "renew", "release", "look", "relay"))
        instance = random.choice(("a", "b", "c"))
        guarding, replicated = random.random() < 0.8, random.random() < 0.5
        deadline = self.now() + random.choice((10_000_000,) * 8 + (-5_000_000,))
        token, tenure = None, f"boot-{random.randrange(3)}"
        if kind in ("renew", "release"):
            instance, token, tenure = random.choice(self.terms[-3:] or [(instance, 7, tenure)])
            tenure = random.choice((tenure, tenure, tenure, "other"))
        floor = random.choice((0, TTL // 2, TTL + 1))
        asked = (instance, TTL, deadline, int(guarding), "" if token is None else token, tenure, floor, int(replicated))
        model.late = random.choice((0, 0, LATE))
        given = (*asked, model.late)
        name = "release" if kind == "look" else kind
        model.info_allowed = random.random() < 0.95
        redis = self.real if model.info_allowed else self.managed
        reply, model.now, guard, notice, history = parse(redis.eval(SCRIPTS[name].decode(), 2, KEY, FENCE, *given))
        appended = model.appended
        if kind == "acquire":
            answer = model.acquire(instance, TTL, deadline, guarding, tenure, replicated)
        elif kind == "renew":
            answer = model.renew(instance, TTL, deadline, guarding, token, tenure, floor, replicated)
        elif kind == "relay":
            answer = model.relay(instance, guarding)
        else:
            answer = model.release(instance, TTL, deadline, guarding, token, tenure)
        if reply.outcome in (Outcome.ACQUIRED, Outcome.ADOPTED):
            assert reply.token is not None
            self.terms.append((instance, reply.token, tenure))
        assert (guard or "-") == answer.guard
        assert notice == ("sent" if reply.outcome is Outcome.RELEASED else None)
        assert history == ("kept" if model.appended > appended else None)
        return f"{kind} {given}", reply, answer

    def meddle(self) -> None:
        """Make a random change to both, as an operator, a failover or the passage of time would."""
        model = self.model
        meddlings = [self.delete] * 4 + [self.set, self.disable, self.persist, self.expire, self.spoil_key]
        meddlings += [self.step_down] * 4
        meddlings += [self.lose_fence] * 2 + [self.spoil_fence, self.spoil_token, self.change_server]
        if model.fence.changed_at is not None:
            meddlings += [self.change_moment] * 4 + [self.record_another_server] * 2
        self.random.choice(meddlings if model.fence_is_hash else meddlings[:9])()

    def delete(self) -> None:
        self.type("DEL", KEY)
        self.model.delete()

    def set(self) -> None:
        self.set_to(self.random.choice(("a", "b", "someone")))

    def disable(self) -> None:
        self.set_to(self.random.choice(("DISABLED", "disabled")))

    def set_to(self, value: str) -> None:
        milliseconds = self.random.choice((None, 1000, 60_000))
        self.type("SET", KEY, value, *(("PX", milliseconds) if milliseconds else ()))
        self.model.set(value, milliseconds)

    def persist(self) -> None:
        self.type("PERSIST", KEY)
        self.model.persist()

    def expire(self) -> None:
        self.type("PEXPIRE", KEY, 1)
        if self.model.value is not None:
            self.model.expires = self.model.now // 1000 + 1
        time.sleep(0.005)

    def spoil_key(self) -> None:
        self.type("DEL", KEY)
        self.type("LPUSH", KEY, "x")
        self.model.spoil_key()

    def lose_fence(self) -> None:
        self.type("DEL", FENCE)
        self.model.fence = Fence()

    def spoil_fence(self) -> None:
        self.type("DEL", FENCE)
        self.type("SET", FENCE, "x")
        self.model.fence, self.model.fence_is_hash = Fence(), False

    def spoil_token(self) -> None:
        now = self.now()
        token = self.random.choice(("garbage", 2**53 - 1, now + DAY + 10_000_000, now + DAY - 10_000_000))
        self.type("HSET", FENCE, "token", token)
        self.model.fence.token = token

    def step_down(self) -> None:
        """Ask the holder to step down, or put a step-down request for an earlier term into the fence."""
        token = self.model.step_down()
        if token is None:
            token = self.random.choice((7, self.terms[-1][1] if self.terms else 7))
            self.model.fence.step_down = token
        self.type("HSET", FENCE, "step_down", token)

    def change_server(self) -> None:
        for name, value in self.random.choice(IDENTITIES).items():
            if value is None:
                self.type("HDEL", FENCE, name)
            else:
                self.type("HSET", FENCE, name, value)
            setattr(self.model.fence, name, value)

    def record_another_server(self) -> None:
        """Record in the fence that another server behind the same address was seen last."""
        name = self.random.choice("def") * 80
        self.type("HSET", FENCE, "changed", name)
        self.model.fence.changed = name

    def change_moment(self) -> None:
        ago = self.random.choice((10_000, TTL * 1000 - 500_000, TTL * 1000 + 1, -5_000_000))
        self.model.fence.changed_at = at = self.now() - ago
        self.type("HSET", FENCE, "changed_at", at)


@pytest.mark.parametrize("seed", range(3))
def test_the_model_has_the_replies_and_effects_of_the_real_scripts(server: RedisServer, seed: int) -> None:
    both = Both(server, Random(seed))
    for _ in range(STEPS):
        if both.random.random() < 0.2:
            both.meddle()
        else:
            both.step()
    both.close()
    assert len(both.seen) >= 10


@pytest.mark.parametrize("binary", sorted(BINARIES))
def test_the_model_guards_a_freshly_started_server_like_the_real_scripts(tmp_path: Path, binary: str) -> None:
    with RedisServer(tmp_path, binary=BINARIES[binary]) as server:
        both = Both(server, Random(binary))
        while both.now() // 1_000_000 - both.model.started < TTL // 1000 + 2:
            both.lose_fence()
            both.delete()
            time.sleep(0.01 if both.now() % 1_000_000 < 970_000 else 0.04)  # uptime changes at the full second
            both.step()
        both.close()
    assert both.seen[Outcome.GUARDED] > 0
    assert both.seen[Outcome.ACQUIRED] > 0


def test_every_outcome_of_the_protocol_occurs_in_the_scripts() -> None:
    outcomes = set(re.findall(r"'([a-z_]+)'", b"".join(SCRIPTS.values()).decode()))

    assert {outcome.value for outcome in Outcome} - {"unconfirmed"} <= outcomes
