"""The fifteen faults of an earlier implementation, each seeded again.

The numbers only identify the faults. A fault with several variants is several bugs.
"""

from tests.mutants.trial import Bug

_TRACKER = "tests/service/work/test_tracker.py::test_"
_JOBS = "tests/service/work/test_jobs.py::test_"
_SCHEDULER = "tests/service/work/test_scheduler.py::test_"
_CALENDAR = "tests/service/market/test_calendar_cross_check.py::test_"

BUGS = [
    Bug(
        "fault 1: a missing price is invented",
        "service/work/tracker.py",
        right="                quote.price,\n                quote.at,",
        wrong="                quote.price * (100 if symbol in answers else 102) / 100,\n                quote.at,",
        test=_TRACKER + "a_missing_price_is_carried_forward_and_marked_stale_with_its_age",
    ),
    Bug(
        "fault 1: prices are set once and never refreshed",
        "service/work/tracker.py",
        right="fresh = await self._latest(symbols)",
        wrong="fresh = {} if before else await self._latest(symbols)",
        test=_TRACKER + "every_tick_of_the_schedule_values_every_portfolio",
    ),
    Bug(
        "fault 2: live messages are never sent",
        "service/work/tracker.py",
        right="await writes[0].notify(as_of)",
        wrong="pass",
        test="tests/service/api/test_streams.py::test_a_follower_sends_a_tick_within_a_second",
    ),
    Bug(
        "fault 3: the EOD run calls a function without a required argument",
        "service/work/jobs.py",
        right="writes.history(KIND, day, origin=self._origin, overwrite=OVERWRITE[self.job])",
        wrong="writes.history(KIND, day, origin=self._origin)",
        test=_JOBS + "eod_writes_one_row_per_portfolio_at_the_closes",
    ),
    Bug(
        "fault 4: an upsert names a constraint that does not exist",
        "service/database/sql/write_history.sql",
        right="on conflict (portfolio_id, date, kind)",
        wrong="on conflict (portfolio_id, date)",
        test=_JOBS + "the_official_close_replaces_the_provisional_one_and_its_row",
    ),
    Bug(
        "fault 5: only a task that saw the market close runs the EOD",
        "service/work/backlog.py",
        right="elif run.session.date >= earliest:",
        wrong="elif run.due == now:",
        test=_SCHEDULER + "a_day_without_a_leader_at_the_close_is_not_lost",
    ),
    Bug(
        "fault 6: holidays are ignored",
        "service/market/calendar.py",
        right="day.isoweekday() > 5 or day in self._holidays",
        wrong="day.isoweekday() > 5",
        test=_CALENDAR + "every_session_s_open_and_close_is_the_same_in_exchange_calendars",
    ),
    Bug(
        "fault 6: early closes are ignored",
        "service/market/calendar.py",
        right="if day in self._half_days:",
        wrong="if day not in (day, self._half_days):",
        test=_CALENDAR + "every_session_s_open_and_close_is_the_same_in_exchange_calendars",
    ),
    Bug(
        "fault 7: the snapshot uses the day of the run as its rows' date",
        "service/work/jobs.py",
        right="rows += await attempt.fill(day.date, book)",
        wrong="rows += await attempt.fill(self._now().date(), book)",
        test=_SCHEDULER + "through_a_week_each_session_has_each_run_once",
    ),
    Bug(
        "fault 7: the snapshot runs seven days a week",
        "service/market/calendar.py",
        right="day.isoweekday() > 5 or day in self._holidays",
        wrong="day in self._holidays",
        test=_SCHEDULER + "through_a_week_each_session_has_each_run_once",
    ),
    Bug(
        "fault 7: the snapshot uses live prices",
        "service/work/jobs.py",
        right="return list(valid_prices(answer.values()).values())",
        wrong="return []",
        test=_JOBS + "the_official_close_replaces_the_provisional_one_and_its_row",
    ),
    Bug(
        "fault 8: missed runs are not caught up",
        "service/work/backlog.py",
        right="calendar.last_closed(now), look_back)",
        wrong="calendar.last_closed(now), 1)",
        test=_SCHEDULER + "missed_runs_are_caught_up_oldest_first_within_the_look_back",
    ),
    Bug(
        "fault 8: a finished run leaves no record",
        "service/work/jobs.py",
        right="await writes.end(job, session.date)",
        wrong="pass",
        test=_JOBS + "a_run_that_is_done_is_not_run_again",
    ),
    Bug(
        "fault 9: a service that failed leaves its heartbeat running",
        "sidecar/client/leadership.py",
        right="while not (job.done() or asking.done()) and",
        wrong="while not asking.done() and",
        test="tests/service/work/test_background.py::"
        "test_failed_work_frees_its_lease_for_another_task_and_the_other_work_continues",
    ),
    Bug(
        "fault 10: a key with another holder is renewed",
        "sidecar/scripts/renew.lua",
        right="if not our_term() then",
        wrong="if not (our_term() or holder) then",
        test="tests/sidecar/redis/test_scripts.py::test_renew_and_release_compare_id_and_token[wheel]",
    ),
    Bug(
        "fault 11: a task sees only its own runs",
        "service/api/background_status.py",
        right="await store.job_runs(), runs",
        wrong="{}, runs",
        test="tests/service/test_process.py::test_a_task_that_does_not_lead_streams_what_the_leader_writes",
    ),
    Bug(
        "fault 12: high and low are never reset",
        "service/database/sql/update_live.sql",
        right="when live.session_date = $1 and live.day_open = row.day_open\n        then greatest",
        wrong="when live.day_open is not null\n        then greatest",
        test=_TRACKER + "high_and_low_are_reset_even_if_the_open_is_unchanged",
    ),
    Bug(
        "fault 12: the open is never reset",
        "service/portfolio/quotes.py",
        right="before is not None and priced_in(before, session) else price.price",
        wrong="before is not None else price.price",
        test=_TRACKER + "open_high_low_and_change_are_reset_with_each_session",
    ),
    Bug(
        "fault 13: no reconstruction runs after the first finished one",
        "service/work/backlog.py",
        right="records.get((run.job, run.session.date))",
        wrong="next((done for done in records.values() if done.job == run.job and done.finished_at), None)",
        test=_SCHEDULER + "a_failed_run_is_retried_and_delays_no_other",
    ),
    Bug(
        "fault 13: an interrupted run stays in progress",
        "service/database/sql/claim_run.sql",
        right="where run.status <> 'done' or $5",
        wrong="where $5",
        test=_JOBS + "a_run_interrupted_anywhere_is_continued_to_the_same_rows[reconstruction]",
    ),
    Bug(
        "fault 14: a missing price is worth 0",
        "service/portfolio/valuation.py",
        right="known = ((priced > 0) | ~held) & ~overflow",
        wrong="known = ~overflow",
        test=_TRACKER + "a_symbol_without_any_price_is_omitted_from_the_value_and_counted",
    ),
    Bug(
        "fault 15: users write their own history",
        "supabase/migrations/20261123160400_row_level_security.sql",
        right="portfolio_intraday, portfolio_history to authenticated;",
        wrong="""portfolio_intraday to authenticated;
grant all on portfolio_history to authenticated;
create policy owner_writes on portfolio_history to authenticated
    using (portfolio_id in (select id from portfolio where user_id = (select auth.uid())));""",
        test="tests/service/database/test_row_level_security.py::test_a_user_cannot_write_even_their_own_rows[portfolio_history]",
    ),
]
