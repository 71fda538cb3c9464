"""Seeded bugs in the wrapper of `python -m sidecar exec`."""

from tests.mutants.trial import Bug

_EXEC = "tests/sidecar/wrapper/test_exec.py::test_"
_START = "tests/sidecar/wrapper/test_start.py::test_"
_WATCHDOG = "tests/sidecar/wrapper/test_watchdog.py::test_"
_PAUSES = "tests/sidecar/wrapper/test_pauses.py::test_"

BUGS = [
    Bug(
        "COMMAND is reaped while its process group exists",
        "sidecar/wrapper/group.py",
        right="reap_others(self._command, self._watchdog)",
        wrong="reap_others(self._watchdog)",
        test=_EXEC + "the_process_id_of_an_ended_program_is_not_reused_while_its_group_lives",
    ),
    Bug(
        "processes that COMMAND leaves behind outlive the term",
        "sidecar/wrapper/group.py",
        right="left = members(self._command)\n            if left:\n                self.tell",
        wrong="left = [] if self.status is not None else members(self._command)\n            if left:\n"
        "                self.tell",
        test=_EXEC + "processes_left_behind_may_end_within_the_grace_period",
    ),
    Bug(
        "SIGKILL waits for the grace period beyond the deadline",
        "sidecar/wrapper/run.py",
        right="min(self._grace, max(left - self._margin, 0.0))",
        wrong="self._grace",
        test=_EXEC + "a_grace_period_longer_than_the_grant_is_warned_about_and_sigkill_comes_before_the_deadline",
    ),
    Bug(
        "the margin before the deadline stays that of a short first grant",
        "sidecar/wrapper/run.py",
        right="max(self._margin, min(MARGIN, left / 8))",
        wrong="self._margin or min(MARGIN, left / 8)",
        test=_EXEC + "sigkill_keeps_its_distance_from_the_deadline_after_a_short_first_grant",
    ),
    Bug(
        "the watchdog ignores the end of its wrapper",
        "sidecar/wrapper/watchdog.py",
        right="        if self._session:\n            self._end()",
        wrong="        if self._session < 0:\n            self._end()",
        test=_WATCHDOG + "the_watchdog_ends_the_program_of_a_killed_wrapper[by SIGTERM-5]",
    ),
    Bug(
        "the watchdog ignores the clock",
        "sidecar/wrapper/watchdog.py",
        right="if self._session and left <= 0 and (seen",
        wrong="if self._session and left <= -1e9 and (seen",
        test=_WATCHDOG + "the_program_of_a_frozen_wrapper_ends_before_its_grant",
    ),
    Bug(
        "a signal ends the watchdog",
        "sidecar/wrapper/group.py",
        right="every = signal.valid_signals()",
        wrong="every = ()",
        test=_WATCHDOG + "the_watchdog_blocks_every_signal_that_a_process_can_block",
    ),
    Bug(
        "a process of another group in the session is not stopped",
        "sidecar/wrapper/watchdog.py",
        right="if member.group != session:",
        wrong="if member.group == session:",
        test=_EXEC + "a_process_in_another_group_of_the_session_ends_with_the_program",
    ),
    Bug(
        "a stopped program does not get SIGTERM",
        "sidecar/wrapper/group.py",
        right="send(self._command, signal.SIGCONT, left)",
        wrong="send(self._command, signal.SIGURG, left)",
        test=_EXEC + "a_program_stopped_by_sigstop_is_ended",
    ),
    Bug(
        "the loss of the watchdog is not noticed",
        "sidecar/wrapper/run.py",
        right="if group.watchdog_ended:",
        wrong="if group.watchdog_ended and self.stopping:",
        test=_WATCHDOG + "a_program_whose_watchdog_ended_is_restarted",
    ),
    Bug(
        "COMMAND gets the wrapper's modified environment",
        "sidecar/wrapper/group.py",
        right="environment = first_environment() |",
        wrong="environment = dict(os.environb) |",
        test=_EXEC + "the_program_inherits_the_environment_and_the_signals_of_the_wrapper",
    ),
    Bug(
        "with --once a term that ends early starts another term",
        "sidecar/wrapper/run.py",
        right="if self._arguments.once and group.ran:",
        wrong="if self._arguments.once and not group.ran:",
        test=_EXEC + "with_once_a_term_that_ends_first_is_reported_and_the_exit_status_is_that_of_the_program",
    ),
    Bug(
        "a lease is acquired for a command that does not exist",
        "sidecar/wrapper/run.py",
        right="        _find(arguments.command[0])\n",
        wrong="",
        test=_EXEC + "a_missing_command_exits_with_127_and_acquires_no_lease",
    ),
    Bug(
        "the answer of another program in place of the sidecar ends the wrapper",
        "sidecar/wrapper/run.py",
        right="except (OSError, ValueError, HTTPException) as error:",
        wrong="except (OSError, ValueError) as error:",
        test=_EXEC + "a_wrapper_waits_for_its_sidecar_while_another_program_answers[an error of Redis]",
    ),
    Bug(
        "a signal during the imports of exec is not held back",
        "sidecar/__main__.py",
        right="def _exec(words: list[str]) -> int:\n    signal.pthread_sigmask(signal.SIG_BLOCK,",
        wrong="def _exec(words: list[str]) -> int:\n    signal.pthread_sigmask(signal.SIG_UNBLOCK,",
        test=_EXEC + "a_signal_during_the_imports_stops_the_wrapper_as_a_later_one_does",
    ),
    Bug(
        "standard error that nobody reads stops the wrapper",
        "sidecar/wrapper/run.py",
        right='LogOutput(sys.stderr, "standard error")',
        wrong="logging.StreamHandler(sys.stderr)",
        test=_EXEC + "a_wrapper_whose_standard_error_nobody_reads_runs_the_program_and_ends_cleanly",
    ),
    Bug(
        "COMMAND does not inherit the descriptor 3",
        "sidecar/wrapper/group.py",
        right="actions = [(os.POSIX_SPAWN_DUP2, read, 0)]\n",
        wrong="actions = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, read, 3)]\n",
        test=_START + "the_program_inherits_the_open_descriptors_of_the_wrapper",
    ),
    Bug(
        "with --once the status of a COMMAND stopped at its start is lost",
        "sidecar/wrapper/group.py",
        right="while self._read_outcome():",
        wrong="while self.watchdog_ended and self._read_outcome():",
        test=_START + "with_once_the_status_of_a_program_that_was_stopped_at_its_start_is_kept",
    ),
    Bug(
        "with --once a COMMAND that never began has a status",
        "sidecar/wrapper/group.py",
        right='return self._outcome == b"0"',
        wrong="return True",
        test=_START + "with_once_a_wrapper_stopped_before_the_program_is_executed_has_no_status",
    ),
    Bug(
        "orphans stay zombies while COMMAND does not run",
        "sidecar/wrapper/run.py",
        right="        if not self._working:  # a",
        wrong="        if self._working is None:  # a",
        test=_START + "a_child_from_before_the_wrapper_is_reaped_while_no_program_runs",
    ),
    Bug(
        "the error about a missing interpreter says that the existing program is missing",
        "sidecar/wrapper/group.py",
        right="number == errno.ENOENT and shutil.which(command) is not None",
        wrong="number == errno.ENOTDIR and shutil.which(command) is not None",
        test=_START + "a_missing_interpreter_is_named_as_the_cause",
    ),
    Bug(
        "the pauses are reset only after two minutes of work",
        "sidecar/wrapper/pauses.py",
        right="if worked >= STEADY:",
        wrong="if worked >= 2 * STEADY:",
        test=_PAUSES + "pauses_start_over_after_a_minute_of_work_and_not_before",
    ),
]
