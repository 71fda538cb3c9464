"""Seeded bugs in the service, for example in the fence, the writes through it, connections, streams and runs.

Many of the tests that find them use a real Postgres.
"""

from tests.mutants.trial import Bug

_LANES = "tests/service/work/test_tracker_lanes.py::test_"
_FENCE = "tests/service/database/test_fenced_writes.py::test_"
_JOBS = "tests/service/work/test_jobs.py::test_"
_MENDING = "tests/service/commands/test_fence.py::test_"
_OUTGOING = "tests/service/test_outgoing.py::test_"
_SHUTDOWN = "tests/service/test_shutdown.py::test_"
_IMPORTS = "tests/service/commands/test_import_csv.py::test_"
_WATCH = "tests/service/database/test_write_watch.py::test_"
_READ_ONLY = "tests/service/database/test_read_only.py::test_"
_CONNECTIONS = "tests/service/database/test_pool.py::test_"
_PROTECTION = "tests/service/work/test_protection.py::test_"
_RESPONSES = "tests/service/api/test_responses.py::test_"

_ADMISSION = "tests/service/api/test_stream_admission.py::test_"
_CGROUPS = "tests/service/api/test_cgroup_memory.py::test_"

BUGS = [
    Bug(
        "new streams are accepted as soon as memory is below the upper limit",
        "service/api/stream_admission.py",
        right="return use.share >= ACCEPT_BELOW",
        wrong="return use.share >= REFUSE_ABOVE",
        test=_ADMISSION + "streams_are_refused_above_85_percent_until_below_80",
    ),
    Bug(
        "a stream starts although memory is short",
        "service/api/routes.py",
        right="        self._admission.admit()\n",
        wrong="",
        test=_ADMISSION + "a_new_stream_is_refused_while_an_open_one_continues",
    ),
    Bug(
        "reclaimable file pages count as used memory",
        "service/api/cgroup_memory.py",
        right=' - _stat(group).get("inactive_file", 0)',
        wrong="",
        test=_CGROUPS + "file_pages_that_the_kernel_would_free_first_do_not_count",
    ),
    Bug(
        "the memory limit of the task is ignored",
        "service/api/cgroup_memory.py",
        right="    yield from (parent for parent in folder.parents if parent.is_relative_to(point))\n",
        wrong="",
        test=_CGROUPS + "the_cgroup_nearer_to_its_limit_counts_container_or_task",
    ),
    Bug(
        "a task that refuses streams keeps the memory of closed streams",
        "service/api/stream_admission.py",
        right="                await asyncio.to_thread(return_free_memory)",
        wrong="                await asyncio.to_thread(lambda: None)",
        test=_ADMISSION + "free_memory_is_returned_only_while_streams_are_refused",
    ),
    Bug(
        "the reader of live values keeps closed streams",
        "service/api/streams.py",
        right="            try:\n                await self._serve(store, wanted)",
        wrong="            kept = [*map(tuple, self._subscribers.values())]\n            try:\n"
        "                await self._serve(store, wanted)",
        test="tests/service/api/test_streams.py::test_a_closed_stream_leaves_nothing_behind",
    ),
    Bug(
        "the fence is read by a plain SELECT",
        "service/database/sql/enter_fence.sql",
        right="\nfor share",
        wrong="",
        test=_FENCE + "a_claim_waits_for_a_write_in_progress",
    ),
    Bug(
        "the fence does not compare the token",
        "service/database/sql/enter_fence.sql",
        right="and token = $2 and",
        wrong="and $2::bigint is not null and",
        test=_FENCE + "an_older_term_of_the_newest_holder_is_refused",
    ),
    Bug(
        "the fence does not compare the holder",
        "service/database/sql/enter_fence.sql",
        right="and holder = $3",
        wrong="and $3::text is not null",
        test=_FENCE + "another_holder_with_the_same_token_is_refused",
    ),
    Bug(
        "a term without a row in the fence writes",
        "service/database/store.py",
        right="*limits)\n        if row is None:",
        wrong="*limits)\n        if row == ():",
        test=_FENCE + "a_write_before_a_claim_of_the_fence_is_refused",
    ),
    Bug(
        "only the first lane enters the fence",
        "service/database/store.py",
        right="for connection in connections:\n                await self._enter_fence",
        wrong="for connection in connections[:1]:\n                await self._enter_fence",
        test=_FENCE + "each_lane_alone_makes_newer_claims_wait",
    ),
    Bug(
        "an older term claims the fence",
        "service/database/sql/claim_fence.sql",
        right="where excluded.token > fence.token",
        wrong="where excluded.token <> fence.token",
        test=_FENCE + "an_older_term_is_refused_once_a_newer_one_has_claimed_the_fence",
    ),
    Bug(
        "another holder claims the fence with the same token",
        "service/database/sql/claim_fence.sql",
        right="where excluded.token > fence.token",
        wrong="where excluded.token >= fence.token",
        test=_FENCE + "another_holder_with_the_same_token_is_refused",
    ),
    Bug(
        "work starts although its term could not claim the fence",
        "service/database/store.py",
        right="            if row is None:\n                raise StaleTerm(await explain_refusal",
        wrong="            if row == ():\n                raise StaleTerm(await explain_refusal",
        test=_FENCE + "an_older_term_is_refused_once_a_newer_one_has_claimed_the_fence",
    ),
    Bug(
        "a token far ahead of the clock claims the fence",
        "service/database/sql/claim_fence.sql",
        right="where $2::bigint <=",
        wrong="where 0 <=",
        test=_MENDING + "a_token_more_than_a_day_ahead_never_claims_the_fence",
    ),
    Bug(
        "the fence is repaired while a task may lead",
        "service/commands/fence.py",
        right="if not _is_disabled(leadership):",
        wrong='if leadership.state == "leading":',
        test=_MENDING + "no_fence_is_repaired_while_the_lease_is_not_disabled",
    ),
    Bug(
        "the fence is repaired to a token below the database's time",
        "service/database/sql/repair_fence.sql",
        right="set token = (extract(epoch from clock_timestamp()) * 1000000)::bigint",
        wrong="set token = 1",
        test=_MENDING + "a_token_that_refuses_every_term_is_set_to_now_while_the_lease_is_disabled",
    ),
    Bug(
        "library switches for another program apply to the service",
        "runtime/environment.py",
        right="        del environment[name]",
        wrong="        pass",
        test="tests/service/test_environment.py"
        "::test_the_api_works_with_every_variable_that_is_meant_for_another_program",
    ),
    Bug(
        "the database's addresses are tried one after another",
        "service/database/postgres_address.py",
        right="happy_eyeballs_delay=stagger",
        wrong="happy_eyeballs_delay=None",
        test=_OUTGOING + "a_database_is_reached_although_the_first_addresses_drop_packets",
    ),
    Bug(
        "an address that accepts connections but does not answer is tried first again",
        "service/database/postgres_address.py",
        right="self._outgoing.silent.add(self._address[4])",
        wrong="pass",
        test=_OUTGOING + "a_database_is_reached_although_the_first_address_accepts_and_is_silent",
    ),
    Bug(
        "a cancel request goes to another address of the name",
        "service/database/postgres_address.py",
        right="if self._has_answered and self._address is not None:",
        wrong="if self._has_answered and self._address is None:",
        test=_OUTGOING + "a_cancel_request_goes_to_the_server_of_the_connection",
    ),
    Bug(
        "SIGTERM kills a command in the middle of its work",
        "service/shutdown.py",
        right="for number in (signal.SIGINT, signal.SIGTERM):",
        wrong="for number in (signal.SIGINT,):",
        test=_SHUTDOWN + "a_run_by_hand_that_is_stopped_removes_its_protection",
    ),
    Bug(
        "the end of the process waits for a thread that hangs",
        "service/shutdown.py",
        right="        os._exit(status())",
        wrong="        sys.exit(status())",
        test=_SHUTDOWN + "a_process_ends_although_a_thread_and_the_last_log_lines_hang",
    ),
    Bug(
        "the tracker does not check its term before it writes",
        "service/work/tracker.py",
        right="            term.check()\n            if lanes > 1:",
        wrong="            if lanes > 1:",
        test="tests/service/work/test_tracker.py::test_a_term_that_ends_while_values_are_computed_writes_nothing",
    ),
    Bug(
        "values are committed before their prices",
        "service/work/tracker.py",
        right="if lane is writes[-1]:",
        wrong="if lane is writes[0]:",
        test=_LANES + "no_value_is_committed_before_its_prices",
    ),
    Bug(
        "a tick in lanes does not block deletions",
        "service/work/tracker.py",
        right="await writes[0].block_deletions()",
        wrong="pass",
        test=_LANES + "a_deletion_waits_for_a_tick_in_lanes",
    ),
    Bug(
        "the chunks of a daily job are written out of order",
        "service/work/jobs.py",
        right="turns[index].wait",
        wrong="turns[0].wait",
        test=_JOBS + "a_chunk_that_is_ready_first_waits_for_the_chunks_before_it",
    ),
    Bug(
        "a chunk with one existing row is skipped",
        "service/database/fenced_writes.py",
        right="such as one that another program wrote\n                pass",
        wrong="such as one that another program wrote\n                return WriteCounts()",
        test=_JOBS + "a_chunk_is_written_even_if_one_of_its_rows_exists",
    ),
    Bug(
        "staged values may be joined by a nested loop",
        "service/database/fenced_writes.py",
        right='    " set local enable_nestloop = off"\n',
        wrong='    ""\n',
        test="tests/service/work/test_tracker_lanes.py::test_staged_values_are_merged_with_the_stored_rows_in_key_order",
    ),
    Bug(
        "a user's positions are written in the request's order, not in the import's order",
        "service/database/sql/put_positions.sql",
        right="\norder by portfolio_id, symbol, valid_from",
        wrong="",
        test=_IMPORTS + "a_user_s_write_waits_for_an_import_of_the_same_positions",
    ),
    Bug(
        "closes are written in the source's order, not in the import's order",
        "service/database/sql/write_closes.sql",
        right="\norder by symbol",
        wrong="",
        test=_IMPORTS + "the_scheduler_s_closes_wait_for_an_import_of_the_same_closes",
    ),
    Bug(
        "a read-only session is kept",
        "service/database/pool.py",
        right="                if may_persist(error):\n                    _terminate(connection)\n",
        wrong="",
        test=_CONNECTIONS + "a_session_that_began_with_a_harmful_setting_is_replaced",
    ),
    Bug(
        "only the session with the read-only error is replaced",
        "service/database/pool.py",
        right="await self.renew()",
        wrong="pass",
        test=_CONNECTIONS + "a_session_that_began_read_only_is_replaced_once_the_database_can_be_written_to_again",
    ),
    Bug(
        "a new connection is opened although one is free",
        "service/database/pool.py",
        right="(connected or self._free)[-1]",
        wrong="self._free[-1]",
        test=_CONNECTIONS + "a_free_connection_is_used_before_a_new_one_is_opened",
    ),
    Bug(
        "too many connections are reported as an outage",
        "service/database/pool.py",
        right="if not is_overload(error):",
        wrong="if is_overload(error) or True:",
        test=_CONNECTIONS + "at_the_roles_connection_limit_a_caller_waits_for_a_connection_of_the_store",
    ),
    Bug(
        "a store keeps idle connections that another store needs",
        "service/database/pool.py",
        right="await self.group.free_connection(self)",
        wrong="False",
        test=_CONNECTIONS + "a_store_without_a_connection_gets_an_idle_one_of_another_store",
    ),
    Bug(
        "a store reconnects a slot that it has given up",
        "service/database/pool.py",
        right="asyncio.get_running_loop().time() + GIVEN_UP_PAUSE",
        wrong="asyncio.get_running_loop().time()",
        test=_CONNECTIONS + "a_pool_that_gave_up_a_connection_waits_for_its_busy_one",
    ),
    Bug(
        "the error for a role's connection limit does not name the remedy",
        "service/database/transactions.py",
        right="return None if refused is None or self._pool.is_connected else",
        wrong="return None if refused is None or refused else",
        test=_CONNECTIONS + "a_role_that_is_allowed_one_connection_is_reported_with_the_remedy",
    ),
    Bug(
        "a caller that retries starves the other callers",
        "service/database/pool.py",
        right="async with self._queue:",
        wrong="if True:",
        test=_CONNECTIONS + "a_waiting_caller_is_served_before_a_later_one",
    ),
    Bug(
        "a leader that commits nothing continues to lead",
        "service/work/background.py",
        right="        self._task.cancel()",
        wrong="        pass",
        test=_READ_ONLY + "a_leader_that_cannot_write_leaves_the_lead_to_a_task_that_can",
    ),
    Bug(
        "the leader changes repeatedly while no task can write",
        "service/database/write_watch.py",
        right="self._limit = min(max(own, trouble), MAX_LIMIT)",
        wrong="self._limit = min(own, MAX_LIMIT)",
        test=_WATCH + "if_no_task_can_write_the_lead_moves_at_most_six_times_in_ten_minutes",
    ),
    Bug(
        "a slow write counts as a failed write",
        "service/database/write_watch.py",
        right="if self._due_since is None or not self._failures:",
        wrong="if self._due_since is None:",
        test=_WATCH + "a_slow_write_that_has_not_failed_does_not_end_the_term",
    ),
    Bug(
        "claiming the fence counts as committed work",
        "service/database/write_watch.py",
        right="        self._due_since, self._failures = None, 0\n        self.on_change()",
        wrong="        self._due_since, self._failures = None, 0\n        self._terms_without_commit = 0\n"
        "        self.on_change()",
        test=_WATCH + "terms_without_a_commit_and_their_pauses_grow_until_a_commit",
    ),
    Bug(
        "no health check reports a full disk",
        "service/database/transactions.py",
        right="            self.writes.refused(",
        wrong="            (lambda *_: None)(",
        test=_READ_ONLY + "a_full_disk_is_reported_as_the_trouble_of_the_database",
    ),
    Bug(
        "an outage is reported repeatedly",
        "service/outage.py",
        right="self._level if first else logging.DEBUG",
        wrong="self._level",
        test="tests/service/test_outage.py::test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends",
    ),
    Bug(
        "two concurrent loads deadlock on connections",
        "service/database/store.py",
        right="asyncio.timeout(HELPER_LIMIT)",
        wrong="asyncio.timeout(None)",
        test=_CONNECTIONS + "a_load_continues_without_the_connections_that_it_does_not_get",
    ),
    Bug(
        "a settled session is noticed only at the next due run",
        "service/work/scheduler.py",
        right="return failed == 0 and not self._given_up",
        wrong="return failed == 0",
        test="tests/service/work/test_scheduler.py::test_a_snapshot_by_hand_ends_the_report_of_the_same_leader_within_a_minute",
    ),
    Bug(
        "an unsettled session counts as a due write",
        "service/work/scheduler.py",
        right="if not waiting:",
        wrong="if not undone:",
        test="tests/service/work/test_scheduler.py::"
        "test_an_unsettled_session_does_not_hide_the_recovery_from_a_failure_of_the_database",
    ),
    Bug(
        "an unused price source counts as recovered",
        "service/work/tracker.py",
        right="            if answer:  #",
        wrong="            if answer is not None:  #",
        test="tests/service/work/test_tracker.py::test_a_tick_without_a_request_does_not_count_as_recovery",
    ),
    Bug(
        "each attempt of a retried run is logged",
        "service/work/run_log.py",
        right="level = logging.INFO if first else logging.DEBUG",
        wrong="level = logging.INFO",
        test="tests/service/work/test_run_log.py::test_a_lasting_failure_is_one_line_per_term",
    ),
    Bug(
        "a clock that is ahead starts a run early",
        "service/clock.py",
        right="return self._now() - self._ahead",
        wrong="return self._now()",
        test="tests/service/work/test_scheduler.py::test_with_a_clock_that_is_ahead_no_run_begins_early",
    ),
    Bug(
        "a value from the future counts as fresh",
        "service/portfolio/freshness.py",
        right="return at - now > CLOCK_TOLERANCE",
        wrong="return False",
        test="tests/service/portfolio/test_freshness.py::test_a_value_from_the_future_is_stale",
    ),
    Bug(
        "a transaction pooler without other clients is not detected",
        "service/database/pooler.py",
        right="if moved or shared:",
        wrong="if moved and shared:",
        test="tests/service/database/test_pooler.py::test_a_pooler_in_transaction_mode_is_detected_although_it_has_no_other_clients",
    ),
    Bug(
        "a probe that waits behind other requests is reported as an outage",
        "service/api/store_access.py",
        right="            if not self._is_busy():",
        wrong="            if True:",
        test=_CONNECTIONS + "a_probe_that_waits_behind_others_reports_no_outage",
    ),
    Bug(
        "a decimal is sent in scientific notation",
        "service/api/response_types.py",
        right='return format(value, "f")',
        wrong="return str(value)",
        test=_RESPONSES + "a_decimal_is_a_string_in_plain_notation",
    ),
    Bug(
        "a timestamp is sent with its zone's offset",
        "service/api/response_types.py",
        right="value.astimezone(UTC)",
        wrong="value",
        test=_RESPONSES + "an_instant_is_sent_in_utc",
    ),
    Bug(
        "a text from another task is sent without escapes",
        "service/api/response_types.py",
        right="AfterValidator(one_line)",
        wrong="AfterValidator(str)",
        test=_RESPONSES + "texts_of_other_tasks_are_escaped_and_cut",
    ),
    Bug(
        "the state of the sidecar is that of the leaderships, even while they do not ask",
        "service/api/background_status.py",
        right='return "ok" if sidecar is not None and sidecar.trouble is None else "no answer yet"',
        wrong='return "no answer yet"',
        test="tests/service/test_process.py::test_a_service_without_database_reports_whether_its_sidecar_answers",
    ),
    Bug(
        "a process ends the protection that another process of the task needs",
        "service/work/protection.py",
        right="return expiry is not None and expiry - self._expiry > SAME_EXPIRY",
        wrong="return False",
        test=_PROTECTION + "a_process_leaves_the_later_protection_of_another_process",
    ),
    Bug(
        "a process takes its own protection for one of another process",
        "service/work/protection.py",
        right="expiry - self._expiry > SAME_EXPIRY",
        wrong="expiry != self._expiry",
        test=_PROTECTION + "protection_is_set_for_the_length_of_the_job_and_removed",
    ),
]
