"""Seeded bugs in the requests for symbols without a price, and in the choice between two prices."""

from tests.mutants.trial import Bug

_REFUSED = "tests/service/prices/test_refused.py::test_"
_ALPACA = "tests/service/prices/test_alpaca.py::test_"
_STANDING = "tests/service/prices/test_standing.py::test_"
_REFUSALS = "tests/service/work/test_refusals.py::test_"

BUGS = [
    Bug(
        "symbols without a price share requests with symbols that have one",
        "service/prices/standing.py",
        right="return sorted(symbol for symbol in symbols if symbol in self._priced)",
        wrong="return sorted(symbols)",
        test=_REFUSED + "refused_symbols_never_delay_a_symbol_that_had_a_price[1000-True]",
    ),
    Bug(
        "the number of requests for unknown symbols has no limit",
        "service/prices/batches.py",
        right="answers.trials_left = -(-len(answers.waiting) // KNOWN_PER_TRIAL)",
        wrong="pass",
        test=_REFUSED + "a_tenth_of_a_tick_s_requests_goes_to_symbols_of_unknown_standing",
    ),
    Bug(
        "unknown symbols use up the rate limit",
        "service/prices/batches.py",
        right="budget.remaining() <= 0 or self._client.is_scarce:",
        wrong="budget.remaining() <= 0:",
        test=_REFUSED + "requests_for_unknown_symbols_leave_a_quarter_of_the_rate_limit",
    ),
    Bug(
        "a request for an unknown symbol is retried like any other request",
        "service/prices/batches.py",
        right="await request(batch, budget, once=True)",
        wrong="await request(batch, budget)",
        test=_REFUSED + "known_symbols_get_prices_whatever_failure_a_new_symbol_causes[500]",
    ),
    Bug(
        "after many refusals all other unknown symbols are requested",
        "service/prices/batches.py",
        right="if answers.refusals > MAX_REFUSALS:",
        wrong="if answers.refusals > 10 * MAX_REFUSALS:",
        test=_REFUSED + "a_sudden_refusal_of_many_symbols_does_not_use_up_the_requests",
    ),
    Bug(
        "one user's symbol waits for another user's thousands of symbols",
        "service/prices/standing.py",
        right="return Entry(False, size, ",
        wrong="return Entry(False, 0, ",
        test=_STANDING + "a_portfolios_only_symbol_does_not_wait_for_anothers_thousands",
    ),
    Bug(
        "the rest of a failed batch goes before other symbols",
        "service/prices/standing.py",
        right="_replace(negative_limit=-_half(rest))",
        wrong="_replace(negative_limit=-2 * NO_LIMIT)",
        test=_STANDING + "the_rest_of_a_failed_batch_is_requested_last_and_in_halves",
    ),
    Bug(
        "a query for closes drops the symbols that failed before",
        "service/prices/standing.py",
        right="self._heap = rest\n",
        wrong="self._heap = []\n",
        test=_REFUSED + "a_failed_symbol_does_not_delay_the_closes_of_a_larger_portfolio",
    ),
    Bug(
        "a refusal never expires",
        "service/prices/standing.py",
        right="if now < refusal.retry_at <= now + LONGEST_REFUSAL",
        wrong="if True",
        test=_STANDING + "a_refusal_expires_and_lasts_twice_as_long_each_time_up_to_a_day",
    ),
    Bug(
        "refusals end with the term",
        "service/work/tracker.py",
        right="await lane.refusals(refusals)",
        wrong="pass",
        test=_REFUSALS + "the_next_leader_in_another_task_requests_no_refused_symbol",
    ),
    Bug(
        "the next leader does not read which symbols are refused",
        "service/work/tracker.py",
        right="self._standing.remember(await self._store.refusals(), quotes)",
        wrong="self._standing.remember((), quotes)",
        test=_REFUSALS + "the_next_leader_in_another_task_requests_no_refused_symbol",
    ),
    Bug(
        "the daily jobs ask for refused symbols",
        "service/work/jobs.py",
        right="self._standing.remember(await self._store.refusals(), ",
        wrong="self._standing.remember((), ",
        test=_REFUSALS + "the_daily_jobs_use_stored_refusals_and_store_new_ones",
    ),
    Bug(
        "a user sees the unpriced symbols of another user's portfolio",
        "supabase/migrations/20261128130000_symbol_refusals.sql",
        right="or owned.user_id = (select auth.uid())",
        wrong="or owned.user_id is not null",
        test=_REFUSALS + "a_user_sees_unpriced_symbols_only_of_their_own_portfolios",
    ),
    Bug(
        "an older trade hides a newer bar",
        "service/prices/alpaca_shapes.py",
        right="return max(found, key=lambda price: price.at, default=None)",
        wrong="return found[0] if found else None",
        test=_ALPACA + "the_newest_price_of_a_snapshot_wins_by_its_own_time[older trade]",
    ),
    Bug(
        "a price without a time counts as a price of the year 1",
        "service/prices/alpaca_shapes.py",
        right=" and found >= EPOCH",
        wrong="",
        test=_ALPACA + "a_bar_without_a_time_is_no_close_and_affects_no_other_symbol",
    ),
    Bug(
        "an attempt begins with too little time for an answer, and its timeout hides the earlier failure",
        "service/prices/alpaca_client.py",
        right="return left if left >= self._least else 0.0",
        wrong="return max(0.0, left)",
        test=_ALPACA + "no_attempt_begins_with_too_little_time_for_an_answer",
    ),
    Bug(
        "an attempt has no time limit if the budget ends before it begins",
        "service/prices/alpaca_client.py",
        right="min(REQUEST_LIMIT, left)",
        wrong="min(REQUEST_LIMIT, budget.remaining())",
        test=_ALPACA + "an_attempt_has_a_time_limit_even_if_the_budget_ends_before_it_begins",
    ),
    Bug(
        "the current standing of a symbol decides from which queue its batch came",
        "service/prices/batches.py",
        right="if answers.queue.gave(batch):",
        wrong="if self._standing.unknown(batch[:1]):",
        test=_REFUSED + "two_queries_at_the_same_time_may_find_the_same_symbol_refused",
    ),
    Bug(
        "a date with a huge year in Alpaca's answer ends the term",
        "service/prices/alpaca_client.py",
        right="except (ValueError, OverflowError):",
        wrong="except ValueError:",
        test=_ALPACA + "a_429_with_an_invalid_date_is_waited_out",
    ),
    Bug(
        "a long tick interval allows a large burst of requests for unknown symbols",
        "service/price_source.py",
        right="min(settings.tracker_interval / 60, 1.0)",
        wrong="settings.tracker_interval / 60",
        test=_REFUSED + "long_ticks_allow_no_larger_burst_of_requests_for_closes",
    ),
]
