"""A model of one lease's key in Redis, as the scripts keep it, for tests without Redis."""

from dataclasses import dataclass
from math import inf

from sidecar.protocol import Call, Kind, Outcome, Reply


@dataclass
class RedisModel:
    """The key and its fence. All times are on one clock, which the server shares with its callers."""

    ttl: float
    heartbeat: float
    holder: str | None = None
    expires_at: float = inf
    token: int = 0
    token_holder: str | None = None
    tenure: str = ""

    def now_is(self, now: float) -> None:
        """Expire the key if its time has passed."""
        if now >= self.expires_at:
            self.holder, self.expires_at = None, inf

    def execute(self, call: Call, caller: str, now: float) -> Reply:
        """Run the script of `call` for the candidate `caller`."""
        self.now_is(now)
        if now > call.give_up_at:
            return Reply(Outcome.LATE)
        ours = self.holder == caller and self.token_holder == caller
        this_term = ours and (call.token, call.tenure) == (self.token, self.tenure)
        if call.kind is Kind.ACQUIRE and (self.holder is None or self.holder == caller):
            if not ours:
                self.token, self.token_holder, self.holder = self.token + 1, caller, caller
            self.tenure = call.tenure
            self.expires_at = now + self.ttl
            return self._reply(Outcome.ADOPTED if ours else Outcome.ACQUIRED, now)
        if call.kind is Kind.RENEW and this_term:
            if not self.ttl - self.heartbeat / 2 <= self.expires_at - now <= self.ttl:
                self.expires_at = now + self.ttl
            return self._reply(Outcome.RENEWED, now)
        if call.kind is Kind.RELEASE and this_term:
            self.holder, self.expires_at = None, inf
            return self._reply(Outcome.RELEASED, now)
        if self.holder is None:
            return self._reply(Outcome.VACANT, now)
        if self.holder == caller:
            return self._reply(Outcome.SUPERSEDED, now)
        return self._reply(Outcome.DISABLED if self.holder == "DISABLED" else Outcome.HELD, now)

    def _reply(self, outcome: Outcome, now: float) -> Reply:
        ttl = None if self.expires_at == inf else self.expires_at - now
        return Reply(outcome, self.holder, self.token or None, ttl, tenure=self.tenure)
