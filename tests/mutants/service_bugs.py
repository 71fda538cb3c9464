"""Bugs in the fence, in what passes it and in what goes around it, each found by a test with a real Postgres."""

from tests.mutants.trial import Bug

_LANES = "tests/work/test_tracker_lanes.py::test_"
_FENCE = "tests/work/test_fence.py::test_"
_JOBS = "tests/work/test_jobs.py::test_"
_MENDING = "tests/service/test_fence_command.py::test_"
_WAYS = "tests/service/test_ways_out.py::test_"
_ENDING = "tests/service/test_ending.py::test_"
_IMPORTS = "tests/work/test_imports.py::test_"
_WATCH = "tests/work/test_write_watch.py::test_"
_READ_ONLY = "tests/service/test_read_only.py::test_"
_CONNECTIONS = "tests/work/test_connections.py::test_"

BUGS = [
    Bug(
        "the fence is read by a plain SELECT",
        "service/sql/enter_fence.sql",
        right="\nfor share",
        wrong="",
        test=_FENCE + "a_take_up_waits_for_the_write_under_way",
    ),
    Bug(
        "the fence does not compare the token",
        "service/sql/enter_fence.sql",
        right="and token = $2 and",
        wrong="and $2::bigint is not null and",
        test=_FENCE + "an_older_term_of_the_newest_holder_is_refused",
    ),
    Bug(
        "the fence does not compare the holder",
        "service/sql/enter_fence.sql",
        right="and holder = $3",
        wrong="and $3::text is not null",
        test=_FENCE + "the_same_token_in_other_hands_is_refused",
    ),
    Bug(
        "whoever does not find his row in the fence writes all the same",
        "service/store.py",
        right='statement("enter_fence"), lease, token, holder, idle, call) is None:',
        wrong='statement("enter_fence"), lease, token, holder, idle, call) == ():',
        test=_FENCE + "nobody_writes_before_taking_up",
    ),
    Bug(
        "only the first lane enters the fence",
        "service/store.py",
        right="for connection in connections:\n                await self._enter_fence",
        wrong="for connection in connections[:1]:\n                await self._enter_fence",
        test=_FENCE + "each_lane_holds_off_newer_terms_by_itself",
    ),
    Bug(
        "an older term takes the lease up",
        "service/sql/take_up.sql",
        right="where excluded.token > fence.token",
        wrong="where excluded.token <> fence.token",
        test=_FENCE + "an_older_term_is_refused_once_a_newer_one_has_taken_up",
    ),
    Bug(
        "a token that is taken up already is taken up by another",
        "service/sql/take_up.sql",
        right="where excluded.token > fence.token",
        wrong="where excluded.token >= fence.token",
        test=_FENCE + "the_same_token_in_other_hands_is_refused",
    ),
    Bug(
        "a term that could not be taken up works all the same",
        "service/store.py",
        right="if row is None:\n                raise StaleTerm(await refusal",
        wrong="if row == ():\n                raise StaleTerm(await refusal",
        test=_FENCE + "an_older_term_is_refused_once_a_newer_one_has_taken_up",
    ),
    Bug(
        "a token of any size is taken up",
        "service/sql/take_up.sql",
        right="where $2::bigint <=",
        wrong="where 0 <=",
        test=_MENDING + "a_token_more_than_a_day_ahead_is_never_taken_up",
    ),
    Bug(
        "the fence is mended while somebody may lead",
        "service/fence.py",
        right="if not _is_disabled(leadership):",
        wrong='if leadership.state == "leading":',
        test=_MENDING + "nothing_is_mended_while_the_lease_is_not_disabled",
    ),
    Bug(
        "the fence is mended below the database's time",
        "service/sql/mend_fence.sql",
        right="set token = (extract(epoch from clock_timestamp()) * 1000000)::bigint",
        wrong="set token = 1",
        test=_MENDING + "a_token_that_refuses_all_is_set_back_to_now_while_the_lease_is_disabled",
    ),
    Bug(
        "switches of libraries count that were meant for another program",
        "runtime/environment.py",
        right="        del environment[name]",
        wrong="        pass",
        test="tests/service/test_environment.py"
        "::test_the_api_works_as_ever_with_every_switch_that_is_meant_for_another_program",
    ),
    Bug(
        "the database's addresses are tried one after another",
        "service/postgres_address.py",
        right="happy_eyeballs_delay=stagger",
        wrong="happy_eyeballs_delay=None",
        test=_WAYS + "a_database_is_reached_though_the_first_addresses_drop_packets",
    ),
    Bug(
        "an address that takes connections and is silent is tried first again",
        "service/postgres_address.py",
        right="self._ways.silent.add(self._address[4])",
        wrong="pass",
        test=_WAYS + "a_database_is_reached_though_the_first_address_takes_connections_and_is_silent",
    ),
    Bug(
        "a cancel request goes to any address of the name",
        "service/postgres_address.py",
        right="if self._has_answered and self._address is not None:",
        wrong="if self._has_answered and self._address is None:",
        test=_WAYS + "a_cancel_request_goes_to_the_server_of_the_connection",
    ),
    Bug(
        "SIGTERM kills a command in the middle of its work",
        "service/ending.py",
        right="for number in (signal.SIGINT, signal.SIGTERM):",
        wrong="for number in (signal.SIGINT,):",
        test=_ENDING + "a_run_by_hand_that_is_stopped_takes_its_protection_back",
    ),
    Bug(
        "the end of the process waits for a thread that hangs",
        "service/ending.py",
        right="        os._exit(status())",
        wrong="        sys.exit(status())",
        test=_ENDING + "a_process_that_is_left_ends_though_a_thread_hangs_and_nobody_reads_its_log",
    ),
    Bug(
        "the tracker does not look at its term before it writes",
        "service/tracker.py",
        right="term.check()\n        await self._write(",
        wrong="await self._write(",
        test="tests/work/test_tracker.py::test_a_term_that_ends_while_values_are_computed_writes_nothing",
    ),
    Bug(
        "values are committed before the prices that they are made of",
        "service/tracker.py",
        right="if lane is writes[-1]:",
        wrong="if lane is writes[0]:",
        test=_LANES + "no_value_is_there_without_the_prices_that_it_is_made_of",
    ),
    Bug(
        "a tick in lanes does not hold off deletions",
        "service/tracker.py",
        right="await writes[0].hold_off_deletions()",
        wrong="pass",
        test=_LANES + "a_deletion_waits_for_a_tick_in_lanes",
    ),
    Bug(
        "a chunk of a daily job is written as soon as its values are there",
        "service/jobs.py",
        right="turns[place].wait",
        wrong="turns[0].wait",
        test=_JOBS + "a_chunk_whose_values_are_there_first_waits_for_the_ones_before_it",
    ),
    Bug(
        "a chunk one row of which is there is left out",
        "service/writes.py",
        right="such as one that was written around the service\n                pass",
        wrong="such as one that was written around the service\n                return Written()",
        test=_JOBS + "of_a_chunk_one_row_of_which_is_there_the_others_are_written",
    ),
    Bug(
        "a user's positions are written in the request's order, not in the import's",
        "service/sql/put_positions.sql",
        right="\norder by portfolio_id, symbol, valid_from",
        wrong="",
        test=_IMPORTS + "a_user_s_write_and_an_import_of_the_same_positions_follow_each_other",
    ),
    Bug(
        "closes are written in the source's order, not in the import's",
        "service/sql/write_closes.sql",
        right="\norder by symbol",
        wrong="",
        test=_IMPORTS + "the_scheduler_s_closes_and_an_import_of_the_same_ones_follow_each_other",
    ),
    Bug(
        "a session that began read-only is used again and again",
        "service/connections.py",
        right="                if may_stay(error):\n                    connection.terminate()\n",
        wrong="",
        test=_CONNECTIONS + "a_session_that_began_with_a_setting_that_stops_us_is_replaced",
    ),
    Bug(
        "only the session that was refused as read-only is replaced",
        "service/connections.py",
        right="await self.renew()",
        wrong="pass",
        test=_CONNECTIONS + "a_session_that_began_read_only_is_replaced_once_the_database_can_be_written_to_again",
    ),
    Bug(
        "a new connection is asked for though one is free",
        "service/connections.py",
        right="(connected or self._free)[-1]",
        wrong="self._free[-1]",
        test=_CONNECTIONS + "a_free_connection_is_taken_before_another_one_is_asked_for",
    ),
    Bug(
        "too many connections is an outage",
        "service/connections.py",
        right="if not is_overload(error):",
        wrong="if is_overload(error) or True:",
        test=_CONNECTIONS + "where_the_role_may_have_no_more_connections_a_caller_waits_for_one_of_the_stores_own",
    ),
    Bug(
        "a store keeps the connections that it does not use from its neighbours",
        "service/connections.py",
        right="await self.room.make(self)",
        wrong="pass",
        test=_CONNECTIONS + "a_store_without_a_connection_gets_one_that_a_neighbour_does_not_use",
    ),
    Bug(
        "a leader that commits nothing stays",
        "service/background.py",
        right="        self._task.cancel()",
        wrong="        pass",
        test=_READ_ONLY + "a_leader_that_can_write_nothing_leaves_the_lead_to_a_task_that_can",
    ),
    Bug(
        "where no task can write the lead goes round",
        "service/write_watch.py",
        right="self._limit = min(max(own, trouble), LONGEST_LIMIT)",
        wrong="self._limit = min(own, LONGEST_LIMIT)",
        test=_WATCH + "where_no_task_can_write_the_lead_moves_few_times_in_ten_minutes_however_many_there_are",
    ),
    Bug(
        "a write that takes long counts as one that failed",
        "service/write_watch.py",
        right="if self._due_since is None or not self._failures:",
        wrong="if self._due_since is None:",
        test=_WATCH + "a_write_that_takes_long_and_has_not_failed_ends_no_term",
    ),
    Bug(
        "to take the lease up counts as work that was committed",
        "service/write_watch.py",
        right="        self._due_since, self._failures = None, 0\n        self.on_change()",
        wrong="        self._due_since, self._failures, self._barren_terms = None, 0, 0\n        self.on_change()",
        test=_WATCH + "each_barren_term_and_the_pause_after_it_are_longer_until_a_commit",
    ),
    Bug(
        "a full disk is told by no health check",
        "service/transactions.py",
        right="            self.writes.refused(",
        wrong="            (lambda *_: None)(",
        test=_READ_ONLY + "a_disk_that_is_full_is_told_as_what_is_wrong_with_the_database",
    ),
]
