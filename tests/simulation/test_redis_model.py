"""The model that the simulator runs on answers as a real Redis does to the real scripts, in each version there is."""

import re
import time
from collections.abc import Iterator
from random import Random

import pytest
from redis import Redis

from ops.local.servers import RedisServer
from sidecar.protocol import Outcome, Reply
from sidecar.redis_store import _SCRIPTS, _parse, fence_of
from tests.sidecar.conftest import BINARIES
from tests.simulation.redis_model import Answer, Fence, RedisModel

TTL = 2500
KEY = "portfolio:model:leader"
FENCE = fence_of(KEY)
STEPS = 400


@pytest.fixture(scope="module", params=sorted(BINARIES))
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), binary=BINARIES[request.param]) as server:
        yield server


class Both:
    """A real server and the model, driven side by side."""

    def __init__(self, server: RedisServer, random: Random) -> None:
        self.real = Redis.from_url(server.url, decode_responses=True)
        self.random = random
        self.real.delete(KEY, FENCE)
        info = self.real.info("server") | self.real.info("replication")
        self.model = RedisModel(info["run_id"], started=0, replid=info["master_replid"])
        self.terms: list[tuple[str, int, str]] = []

    def now(self) -> int:
        """The server's time in µs."""
        seconds, microseconds = self.real.time()
        return int(seconds) * 1_000_000 + int(microseconds)

    def type(self, *command: str | int) -> None:
        """A command to the real server; the model's clock shows then when that was."""
        with self.real.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # so it is in redis-py
            (seconds, microseconds), _ = pipeline.execute()
        self.model.now = int(seconds) * 1_000_000 + int(microseconds)

    def call(self) -> tuple[str, Reply, Answer]:
        """A random call to both."""
        random = self.random
        kind = random.choice(("acquire", "acquire", "renew", "renew", "release", "look"))
        instance = random.choice(("a", "b", "c"))
        guarding = random.random() < 0.8
        deadline = self.now() + random.choice((10_000_000,) * 8 + (-5_000_000,))
        token, tenure = None, f"boot-{random.randrange(3)}"
        if kind in ("renew", "release"):
            instance, token, tenure = random.choice(self.terms[-3:] or [(instance, 7, tenure)])
            tenure = random.choice((tenure, tenure, tenure, "other"))
        floor = random.choice((0, TTL - 100, TTL))
        name = "release" if kind == "look" else kind
        given = (KEY, FENCE, instance, TTL, deadline, int(guarding), "" if token is None else token, tenure, floor)
        reply, server_time, guard = _parse(self.real.eval(_SCRIPTS[name].decode(), 2, *given))
        self.model.now = server_time
        if kind == "acquire":
            answer = self.model.acquire(instance, TTL, deadline, guarding, tenure)
        elif kind == "renew":
            answer = self.model.renew(instance, TTL, deadline, guarding, token, tenure, floor)
        else:
            answer = self.model.release(instance, TTL, deadline, guarding, token, tenure)
        if reply.outcome in (Outcome.ACQUIRED, Outcome.ADOPTED):
            assert reply.token is not None
            self.terms.append((instance, reply.token, tenure))
        assert guard == answer.guard
        return f"{kind} {given}", reply, answer

    def meddle(self) -> str:
        """What an operator or the time does, to both."""
        random, real, model = self.random, self.real, self.model
        what = random.choice(
            ("DEL",) * 4
            + ("SET", "DISABLED", "PERSIST", "expire", "LPUSH", "garbage", "no fence", "server", "long ago")
        )
        if what == "DEL":
            self.type("DEL", KEY)
            model.delete()
        elif what in ("SET", "DISABLED"):
            value = random.choice(("a", "b", "someone")) if what == "SET" else random.choice(("DISABLED", "disabled"))
            milliseconds = random.choice((None, 1000, 60_000))
            self.type("SET", KEY, value, *(("PX", milliseconds) if milliseconds else ()))
            model.set(value, milliseconds)
        elif what == "PERSIST":
            self.type("PERSIST", KEY)
            model.persist()
        elif what == "expire" and model.key_is_string and model.value is not None:
            self.type("PEXPIRE", KEY, 1)
            model.expires = model.now // 1000 + 1
            time.sleep(0.005)
        elif what == "LPUSH":
            self.type("DEL", KEY)
            self.type("LPUSH", KEY, "x")
            model.spoil_key()
        elif what == "garbage":
            real.hset(FENCE, "token", "garbage")
            model.spoil_fence("garbage")
        elif what == "no fence":
            real.delete(FENCE)
            model.fence = Fence()
        elif what == "server":
            real.hset(FENCE, mapping={"run_id": "another", "replid": "stint"})
            model.fence.run_id, model.fence.replid = "another", "stint"
        elif what == "long ago" and model.fence.changed_at is not None:
            at = model.now - random.choice((10_000, TTL * 1000 - 500_000, TTL * 1000 + 1))
            real.hset(FENCE, "changed_at", at)
            model.fence.changed_at = at
        return what


@pytest.mark.parametrize("seed", range(4))
def test_the_model_answers_as_the_scripts_do(server: RedisServer, seed: int) -> None:
    both = Both(server, Random(seed))
    while both.real.info("server")["uptime_in_seconds"] * 1000 < TTL + 1500:  # else a lost fence is guarded
        time.sleep(0.1)
    seen = set()
    for step in range(STEPS):
        if both.random.random() < 0.15:
            both.meddle()
            continue
        what, reply, answer = both.call()
        seen.add(reply.outcome)
        at = f"step {step}: {what}"
        token = answer.token if isinstance(answer.token, int) else None
        assert (reply.outcome, reply.token, reply.holder) == (answer.outcome, token, answer.holder), at
        assert reply.tenure == (answer.tenure or "-"), at
        assert abs(1000 * (reply.ttl if reply.ttl is not None else -0.001) - max(answer.left, -1)) <= 3, at
        assert abs(1000 * reply.wait - answer.wait) <= 2, at
        if reply.outcome is Outcome.WRONG_TYPE or reply.outcome is Outcome.BAD_FENCE:
            both.type("DEL", KEY, FENCE)
            both.model.delete()
            both.model.fence = Fence()
    both.real.delete(KEY, FENCE)
    both.real.close()
    assert len(seen) >= 10


def test_the_fence_holds_what_the_model_says(server: RedisServer) -> None:
    both = Both(server, Random(99))
    for _ in range(100):
        both.call()
        told = both.real.hgetall(FENCE)
        fence = both.model.fence
        shown = {
            "token": fence.token,
            "holder": fence.holder,
            "tenure": fence.tenure,
            "run_id": fence.run_id,
            "replid": fence.replid,
            "changed": fence.changed,
            "changed_at": fence.changed_at,
        }
        assert told == {name: str(value) for name, value in shown.items() if value is not None}
    both.real.delete(KEY, FENCE)
    both.real.close()


def test_every_outcome_of_the_scripts_is_in_the_model() -> None:
    told = set(re.findall(r"'([a-z_]+)'", b"".join(_SCRIPTS.values()).decode()))

    assert {outcome.value for outcome in Outcome} - {"unconfirmed"} <= told
