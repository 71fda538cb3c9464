"""Queries to Alpaca about many symbols, in batches: known symbols first, then a few of unknown standing.

The requests for symbols of unknown standing are few, are not retried, and do not wait for the rate limit. So they do
not delay the requests for symbols that Alpaca has priced before.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from service.prices import Price, PricesUnavailable
from service.prices.alpaca_client import PARALLEL_REQUESTS, AccessRefused, AlpacaClient, Budget, RequestRefused
from service.prices.standing import Standing, Trials

BATCH_SIZE = 500
"""Symbols in one request. Alpaca documents no limit; usual proxies accept a URL of this length."""
MAX_LIST_LENGTH = 6_000
"""Limit of a request's list of symbols in the URL, in characters. With long symbols, a batch has fewer of them."""
MAX_REFUSALS = 30
"""Limit of the refused batches of known symbols in one query.

Further refused batches wait for the next query, so that many refusals do not use up the requests for the other symbols.
"""
KNOWN_PER_TRIAL = 10
"""Number of requests for known symbols per allowed request for symbols of unknown standing.

The allowed number is rounded up, so each query may send at least one request for symbols of unknown standing. With
`all_new` (see `Batches.ask`) or without known symbols, only the `Allowance` limits their number.
"""
UNLIMITED = 1_000_000
TRIAL_SHARE = 0.25
"""Share of a query's time for symbols of unknown standing. Without known symbols, they may use the whole time."""
SYMBOLS_SHOWN = 10
"""Refused symbols that a log line names."""

LIST_ITEM = re.compile(r"[!-+\--~]{1,32}")
"""Symbols that can stand in a list: printable ASCII without blanks and commas. The pattern is wider than
`formats.SYMBOL`, because another program may have written positions with other symbols."""
NAMED_SYMBOL = re.compile(r"invalid symbol: (\S+)")

logger = logging.getLogger(__name__)

Answer = dict[str, Price]


class BatchRequest(Protocol):
    """Requests the prices of one batch."""

    def __call__(self, batch: list[str], budget: Budget, *, once: bool = False) -> Awaitable[Answer]:
        """The prices of a batch. With `once`, one request that does not wait for the rate limit."""


class Allowance:
    """The allowance of requests for symbols of unknown standing: `most` at once, then `rate` requests a second."""

    def __init__(self, rate: float, most: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._most = most
        self._clock = clock
        self._left = most
        self._at = clock()

    def take(self) -> bool:
        """Use one request of the allowance; returns whether one was left."""
        now = self._clock()
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(slots=True)
class Answers:
    """The state of one query: what is still to be asked, and the results."""

    waiting: deque[list[str]]
    queue: Trials
    found: Answer = field(default_factory=dict)
    newly_refused: list[str] = field(default_factory=list)
    """Symbols that are refused for the first time."""
    refused_alone: list[tuple[str, str]] = field(default_factory=list)
    """Symbols that were refused alone, each with Alpaca's message."""
    failures: list[PricesUnavailable] = field(default_factory=list)
    failed_batches: list[list[str]] = field(default_factory=list)
    trial_failures: list[PricesUnavailable] = field(default_factory=list)
    """Failures of requests for symbols of unknown standing."""
    access_refused: AccessRefused | None = None
    silent: bool = True
    """Whether accepted symbols without a price are left out of the next queries for a while."""
    requests: int = 0
    trials_left: int = UNLIMITED
    """Remaining requests for symbols of unknown standing, within the allowance."""
    refusals: int = 0
    """Refused batches of known symbols."""
    answered: bool = False


class Batches:
    """Sends queries about any number of symbols, according to their standing."""

    def __init__(self, client: AlpacaClient, standing: Standing, allowance: Allowance) -> None:
        self._client = client
        self._standing = standing
        self._allowance = allowance
        self._batch_size = BATCH_SIZE
        self._failed_last_time: frozenset[str] = frozenset()
        """Symbols whose batches failed in the last query that was answered at all. These symbols are asked for last."""

    async def ask(self, symbols: Collection[str], request: BatchRequest, seconds: float, *, all_new: bool) -> Answers:
        """Ask for all symbols that were priced before, then for a few others.

        With `all_new`, symbols that are not refused and were in no failed batch are asked for in the same way, after
        the priced ones.

        Raises:
            AccessRefused: access was refused for symbols that were priced before (with `all_new`, also for the symbols
                that it adds), or for any symbols before the first answer.
        """
        budget = self._client.budget(seconds)
        possible = [symbol for symbol in symbols if LIST_ITEM.fullmatch(symbol)]
        queue = self._standing.trials(possible, silent=all_new)
        answers = Answers(deque(self._known(possible)), queue, silent=not all_new)
        nothing_known = not answers.waiting
        if not nothing_known and not all_new:
            answers.trials_left = -(-len(answers.waiting) // KNOWN_PER_TRIAL)
        if all_new:
            answers.waiting.extend(queue.take_untried(self._batch_size, MAX_LIST_LENGTH, _length))
        try:
            await self._in_parallel(lambda: self._ask_known(answers, request, budget))
            if answers.access_refused is None and (answers.answered or nothing_known):
                trial = self._client.budget(budget.remaining() if nothing_known else seconds * TRIAL_SHARE)
                within = trial if trial.remaining() < budget.remaining() else budget
                await self._in_parallel(lambda: self._ask_unknown(answers, request, within))
            if answers.access_refused is not None:
                raise answers.access_refused
            self._conclude(answers)
        finally:  # each recorded refusal is logged, even if the query is cancelled or fails
            _log_refused(answers.newly_refused)
        return answers

    def _known(self, symbols: Iterable[str]) -> Iterable[list[str]]:
        """The batches of the symbols that were priced before. Those that failed last time come last."""
        known = self._standing.priced(symbols)
        for failed in (False, True):
            batch: list[str] = []
            left = MAX_LIST_LENGTH
            for symbol in known:
                if (symbol in self._failed_last_time) is not failed:
                    continue
                if batch and (len(batch) >= self._batch_size or _length(symbol) > left):
                    yield batch
                    batch, left = [], MAX_LIST_LENGTH
                batch.append(symbol)
                left -= _length(symbol)
            if batch:
                yield batch

    async def _in_parallel(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(PARALLEL_REQUESTS):
                tasks.create_task(work())

    async def _ask_known(self, answers: Answers, request: BatchRequest, budget: Budget) -> None:
        while answers.waiting:
            batch = answers.waiting.popleft()
            answers.requests += 1
            try:
                found = await request(batch, budget)
            except RequestRefused as refusal:
                self._split_refused(answers, batch, refusal)
            except AccessRefused as refusal:
                answers.access_refused = refusal
                answers.waiting.clear()
            except PricesUnavailable as failure:
                answers.failures.append(failure)
                answers.failed_batches.append(batch)
            else:
                self._take(answers, batch, found)

    async def _ask_unknown(self, answers: Answers, request: BatchRequest, budget: Budget) -> None:
        while answers.access_refused is None and answers.queue:
            if budget.remaining() <= 0 or self._client.is_scarce:
                return
            if answers.trials_left == 0 or not self._allowance.take():
                return
            answers.trials_left -= 1
            batch = answers.queue.next(self._batch_size, MAX_LIST_LENGTH, _length)
            try:
                found = await request(batch, budget, once=True)
            except RequestRefused as refusal:
                self._requeue(answers, batch, self._without_named(answers, batch, refusal), refusal)
            except AccessRefused as refusal:
                if answers.answered:  # the plan does not cover these symbols
                    self._requeue(answers, batch, batch, refusal)
                else:
                    answers.access_refused = refusal
            except PricesUnavailable as failure:
                answers.trial_failures.append(failure)
                if answers.answered and not self._client.is_scarce:
                    self._standing.record_failure(batch, alone=len(batch) == 1)
            else:
                self._take(answers, batch, found)

    def _take(self, answers: Answers, batch: list[str], found: Answer) -> None:
        answers.answered = True
        answers.found |= found
        self._standing.record_answer(batch, found, silent=answers.silent)

    def _split_refused(self, answers: Answers, batch: list[str], refusal: RequestRefused) -> None:
        """Queue the symbols that the refusal does not name. If it names no symbol, queue each half of the batch.

        A batch from the queue of unknown symbols goes back to that queue instead. After `MAX_REFUSALS` refusals,
        a batch of known symbols fails.
        """
        rest = self._without_named(answers, batch, refusal)
        if answers.queue.gave(batch):
            self._requeue(answers, batch, rest, refusal)
            return
        answers.refusals += 1
        if answers.refusals > MAX_REFUSALS:
            answers.failures.append(PricesUnavailable(f"Alpaca: {refusal}"))
        elif len(rest) < len(batch):
            answers.waiting.extend([rest] if rest else [])
        elif len(batch) > 1:
            half = (len(batch) + 1) // 2
            if refusal.status == 414:
                self._batch_size = min(self._batch_size, half)
            answers.waiting.extend((batch[:half], batch[half:]))
        else:
            answers.refused_alone.append((batch[0], str(refusal)))

    def _without_named(self, answers: Answers, batch: list[str], refusal: RequestRefused) -> list[str]:
        """The batch without the symbol that the refusal names, if it is in the batch."""
        named = NAMED_SYMBOL.search(str(refusal))
        if refusal.status != 400 or named is None or named[1] not in batch:
            return batch
        self._refuse(answers, named[1])
        return [symbol for symbol in batch if symbol != named[1]]

    def _requeue(self, answers: Answers, batch: list[str], rest: list[str], refusal: Exception) -> None:
        """Put the rest of a refused batch back into the queue of unknown symbols, for this query or the next."""
        if len(batch) == len(rest) == 1:
            answers.refused_alone.append((batch[0], str(refusal)))
        elif rest:
            self._standing.record_failure(rest)
            answers.queue.put_back(rest)

    def _refuse(self, answers: Answers, symbol: str) -> None:
        if self._standing.record_refusal(symbol):
            answers.newly_refused.append(symbol)

    def _conclude(self, answers: Answers) -> None:
        """Attribute the failures to the failed symbols if any request was answered, else to the whole query."""
        if answers.answered:
            for symbol, _ in answers.refused_alone:
                self._refuse(answers, symbol)
            for batch in answers.failed_batches:
                self._standing.record_failure(self._standing.unknown(batch))
            self._failed_last_time = frozenset(symbol for batch in answers.failed_batches for symbol in batch)
        elif answers.refused_alone:
            answers.failures.insert(0, PricesUnavailable(f"Alpaca: {answers.refused_alone[-1][1]}"))


def _length(symbol: str) -> int:
    """Length of the symbol in a request's URL, with its comma."""
    return len(quote(symbol, safe="")) + 3


def _log_refused(symbols: Collection[str]) -> None:
    """Log the symbols, if there are any; at most `SYMBOLS_SHOWN` are named."""
    if symbols:
        more = f", and {len(symbols) - SYMBOLS_SHOWN} more" if len(symbols) > SYMBOLS_SHOWN else ""
        logger.warning("Alpaca refuses %s%s", ", ".join(sorted(symbols)[:SYMBOLS_SHOWN]), more)
