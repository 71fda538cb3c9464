"""Calls of the scripts, one by one, with every argument chosen by the test."""

from dataclasses import dataclass
from typing import NamedTuple

from redis import Redis

from sidecar.redis.script_calls import SCRIPTS, fence_of

KEY = "portfolio:background_services:leader"
FENCE = fence_of(KEY)


class Answer(NamedTuple):
    """A reply of `scripts/prelude.lua`: `left` and `wait` in ms, `time` in µs."""

    outcome: str
    token: str
    tenure: str
    left: int
    time: int
    wait: int
    guard: str
    notice: str
    history: str
    watchers: str
    direct: str
    holder: str


@dataclass
class Caller:
    """A candidate without its own rules: the test chooses each call. `ttl` and `late` are in ms."""

    redis: Redis
    id: str = "a"
    tenure: str = "boot-0"
    ttl: int = 30_000
    guarding: bool = False
    late: int = 0
    replicas: int = 0
    reason: str = ""
    key: str = KEY

    def acquire(self, *, deadline: int = 2**53) -> Answer:
        return self._call("acquire", "", deadline)

    def renew(self, token: str, *, deadline: int = 2**53) -> Answer:
        return self._call("renew", token, deadline)

    def release(self, token: str, *, deadline: int = 2**53) -> Answer:
        return self._call("release", token, deadline)

    def look(self) -> Answer:
        return self._call("release", "", 2**53)

    def relay(self, *, deadline: int = 2**53) -> Answer:
        return self._call("relay", "", deadline)

    def _call(self, script: str, token: str, deadline: int) -> Answer:
        arguments = [
            self.id,
            self.ttl,
            deadline,
            int(self.guarding),
            token,
            self.tenure,
            self.ttl * 5 // 6,
            self.replicas,
            self.late,
            self.reason,
        ]
        answer = str(
            self.redis.eval(
                SCRIPTS[script].decode(), 2, self.key, fence_of(self.key), *(str(each) for each in arguments)
            )
        )
        outcome, token, tenure, left, time, wait, *facts = answer.split(" ", 11)
        return Answer(outcome, token, tenure, int(left), int(time), int(wait), *facts)
