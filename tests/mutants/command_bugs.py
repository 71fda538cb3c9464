"""Seeded bugs in the operator's commands and in the sidecar's `GET /status`."""

from tests.mutants.trial import Bug

_DISABLING = "tests/sidecar/commands/test_disabling.py::test_"
_STEP_DOWN = "tests/sidecar/commands/test_step_down.py::test_"
_LOOK = "tests/sidecar/commands/test_look.py::test_"
_WATCH = "tests/sidecar/commands/test_watch.py::test_"
_JSON = "tests/sidecar/commands/test_json.py::test_"
_LAYOUT = "tests/sidecar/commands/test_layout.py::test_"
_EXIT = "tests/runtime/test_command_line.py::test_"
_CONTROL = "tests/sidecar/test_control.py::test_"

DISABLING = [
    Bug(
        "the reason of an earlier disable is shown for a later disable",
        "sidecar/commands/look.py",
        right="return left >= 0 and noted.isdecimal() and abs(int(noted) - ends) <= SAME_END",
        wrong="return bool(noted)",
        test=_DISABLING + "a_reason_is_shown_only_for_its_own_disable[by_hand0]",
    ),
    Bug(
        "enable leaves the reason in the fence",
        "sidecar/scripts/enable.lua",
        right="  redis.pcall('HDEL', fence, 'disabled_by', 'disabled_reason', 'disabled_until')",
        wrong="  ",
        test=_DISABLING + "enable_removes_the_reason",
    ),
    Bug(
        "a disable without the right to write the fence fails halfway",
        "sidecar/scripts/disable.lua",
        right="local written, problem = pcall(function()",
        wrong="local written, problem = (function(note) return true, note() end)(function()",
        test=_DISABLING + "an_account_without_a_right_to_store_the_reason_can_still_disable[+hset]",
    ),
]
"""Bugs in `disable` and `enable`."""

STEP_DOWN = [
    Bug(
        "a step-down ends a newer term than the command showed",
        "sidecar/scripts/step_down.lua",
        right="if last ~= token or last_holder ~= holder then return {'changed', ''} end\n",
        wrong="",
        test=_STEP_DOWN + "the_script_asks_only_the_holder_of_the_named_term[wheel]",
    ),
    Bug(
        "a step-down counts as done when the same task leads again",
        "sidecar/commands/step_down.py",
        right='if now.word == "held" and now.holder == before.holder:',
        wrong="if False:",
        test=_STEP_DOWN + "the_status_is_1_if_no_other_task_acquires_the_lease",
    ),
    Bug(
        "a step-down that the failover guard delays does not name the guard",
        "sidecar/commands/step_down.py",
        right="(now.server_changed or not now.token)",
        wrong="False",
        test=_LOOK + "a_step_down_that_the_failover_guard_delays_names_the_guard[another-server]",
    ),
    Bug(
        "a step-down does not name the guard if Redis has lost its data",
        "sidecar/commands/step_down.py",
        right="(now.server_changed or not now.token)",
        wrong="now.server_changed",
        test=_LOOK + "a_step_down_that_the_failover_guard_delays_names_the_guard[lost-data]",
    ),
    Bug(
        "step-down does not wait for the next leader",
        "sidecar/commands/step_down.py",
        right="while (left := asked + limit - clock()) > 0:",
        wrong="while (left := asked - clock()) > 0:",
        test=_STEP_DOWN + "step_down_prints_which_task_leads_next",
    ),
    Bug(
        "a lost connection ends the wait for a step-down",
        "sidecar/commands/step_down.py",
        right="                except CommandError as error:\n                    problem = str(error)\n",
        wrong="                except CommandError as error:\n                    raise error\n",
        test=_STEP_DOWN + "a_lost_connection_does_not_end_the_waiting",
    ),
    Bug(
        "the output of a command stays in a buffer until the command ends",
        "sidecar/__main__.py",
        right="print(line, flush=True)",
        wrong="print(line)",
        test=_STEP_DOWN + "ctrl_c_ends_only_the_waiting_and_not_the_request",
    ),
]
"""Bugs in `step-down`."""

REPLICA = [
    Bug(
        "leaders does not notice a read-only replica",
        "sidecar/scripts/fence.lua",
        right="read_only and 'read_only' or ''",
        wrong="''",
        test=_LOOK + "a_read_only_replica_is_shown_if_the_account_may_call_info[wheel]",
    ),
    Bug(
        "leaders fails if the account may not call INFO",
        "sidecar/scripts/fence.lua",
        right="redis.pcall('INFO', 'replication')",
        wrong="call('INFO', 'replication')",
        test=_LOOK + "a_read_only_replica_is_shown_if_the_account_may_call_info[wheel]",
    ),
]
"""Bugs in the look at a server that refuses writes."""

WATCHING = [
    Bug(
        "Ctrl-C ends watch with a traceback, or as a failure",
        "sidecar/commands/watch.py",
        right="            loop.add_signal_handler(number, end)\n",
        wrong="            pass\n",
        test=_WATCH + "the_screen_shows_time_and_changes_and_ctrl_c_restores_the_terminal",
    ),
    Bug(
        "watch leaves the terminal on the alternate screen",
        "sidecar/commands/display.py",
        right="            return\n        self._leave()\n",
        wrong="            return\n",
        test=_WATCH + "the_screen_shows_time_and_changes_and_ctrl_c_restores_the_terminal",
    ),
    Bug(
        "the remaining time stands still in watch",
        "sidecar/commands/display.py",
        right="tick: float | None = 1.0",
        wrong="tick: float | None = None",
        test=_WATCH + "the_time_moves_without_commands_to_redis",
    ),
    Bug(
        "a restart of Redis ends watch",
        "sidecar/commands/watch.py",
        right="            if not answered:\n",
        wrong="            if settings:\n",
        test=_WATCH + "a_restart_of_redis_is_reported_and_the_watch_continues[options0]",
    ),
    Bug(
        "watch reports each renewal as a change",
        "sidecar/commands/view.py",
        right="return seen.word, seen.holder,",
        wrong="return seen.left, seen.word, seen.holder,",
        test=_WATCH + "a_pipe_gets_one_line_for_each_change_and_none_for_a_renewal",
    ),
    Bug(
        "watch waits for a change after the reader has closed the pipe",
        "sidecar/commands/watch.py",
        right="add_reader(end, closed.set)",
        wrong="time()",
        test=_WATCH + "a_closed_pipe_ends_watch_without_waiting_for_a_change",
    ),
    Bug(
        "watch does not poll while it gets no notifications",
        "sidecar/commands/changes.py",
        right="else POLL\n",
        wrong="else 3_600.0\n",
        test=_WATCH + "without_the_right_to_track_them_changes_are_shown_a_second_late_and_the_delay_is_reported",
    ),
]
"""Bugs in `watch`."""

OUTPUT = [
    Bug(
        "a long name makes a table wider than the terminal",
        "sidecar/commands/layout.py",
        right="while sum(widths) > room and max(widths) > 1:",
        wrong="while sum(widths) > 1_000 and max(widths) > 1:",
        test=_LAYOUT + "the_widest_columns_are_cut_first_and_the_cut_is_marked",
    ),
    Bug(
        "the progress of a command is part of its JSON document",
        "sidecar/commands/operator.py",
        right="_say_beside if words.as_json else say",
        wrong="say if words.as_json else say",
        test=_JSON + "fence_prints_its_progress_outside_the_document",
    ),
    Bug(
        "the status of a follower does not show the remaining time",
        "sidecar/election/candidate.py",
        right="None if result.ttl is None else call.sent_at + result.ttl",
        wrong="None if result else call.sent_at",
        test=_CONTROL + "status_of_a_follower_shows_the_remaining_time_of_the_holders_key",
    ),
    Bug(
        "a command reports a missing password as a protocol error",
        "sidecar/redis/failures.py",
        right="elif text.startswith(_BEFORE_LOGIN):",
        wrong="elif not text:",
        test="tests/sidecar/commands/test_operator.py::test_each_command_says_that_the_password_is_missing",
    ),
    Bug(
        "a command with a closed standard output ends with a traceback",
        "runtime/command_line.py",
        right="    _open_closed_streams()\n",
        wrong="",
        test=_EXIT + "a_closed_standard_stream_changes_nothing_else",
    ),
    Bug(
        "a connection gets the descriptor of a closed standard output",
        "runtime/command_line.py",
        right='("stdin", "r"), ',
        wrong="",
        test=_EXIT + "a_closed_standard_stream_does_not_give_its_descriptor_to_a_connection",
    ),
]
"""Bugs in the output."""

BUGS = [*DISABLING, *STEP_DOWN, *REPLICA, *WATCHING, *OUTPUT]
"""All bugs of this module."""
