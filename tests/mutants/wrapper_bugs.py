"""Bugs in the wrapper of `python -m sidecar exec`, each found by a test with real processes."""

from tests.mutants.trial import Bug

_EXEC = "tests/sidecar/wrapper/test_exec.py::test_"
_WATCHDOG = "tests/sidecar/wrapper/test_watchdog.py::test_"
_PAUSES = "tests/sidecar/wrapper/test_pauses.py::test_"

BUGS = [
    Bug(
        "COMMAND is reaped while its process group exists",
        "sidecar/wrapper/group.py",
        right="if ended is None or ended.si_pid in (self._command, self._watchdog):",
        wrong="if ended is None or ended.si_pid == self._watchdog:",
        test=_EXEC + "a_program_that_ends_by_itself_keeps_its_id_while_its_group_lives",
    ),
    Bug(
        "processes that COMMAND leaves behind outlive the term",
        "sidecar/wrapper/group.py",
        right="left = members(self._command)\n            if left:\n                self.tell",
        wrong="left = [] if self.status is not None else members(self._command)\n            if left:\n"
        "                self.tell",
        test=_EXEC + "what_a_program_leaves_behind_may_end_within_the_grace",
    ),
    Bug(
        "SIGKILL waits for the grace period beyond the deadline",
        "sidecar/wrapper/run.py",
        right="min(self._grace, max(left - margin, 0.0))",
        wrong="self._grace",
        test=_EXEC + "a_longer_grace_is_warned_of_and_sigkill_comes_before_the_deadline",
    ),
    Bug(
        "the watchdog ignores the end of its wrapper",
        "sidecar/wrapper/watchdog.py",
        right="        if self._session:\n            self._end()",
        wrong="        if self._session < 0:\n            self._end()",
        test=_WATCHDOG + "the_watchdog_ends_the_program_of_a_wrapper_that_was_killed[by SIGTERM-5]",
    ),
    Bug(
        "the watchdog ignores the clock",
        "sidecar/wrapper/watchdog.py",
        right="if self._session and left <= 0 and (seen",
        wrong="if self._session and left <= -1e9 and (seen",
        test=_WATCHDOG + "the_program_of_a_frozen_wrapper_has_ended_before_its_grant",
    ),
    Bug(
        "a signal ends the watchdog",
        "sidecar/wrapper/group.py",
        right="every = signal.valid_signals()",
        wrong="every = ()",
        test=_WATCHDOG + "the_watchdog_hears_no_signal_but_sigkill",
    ),
    Bug(
        "a process of another group in the session is not stopped",
        "sidecar/wrapper/watchdog.py",
        right="if member.group != session:",
        wrong="if member.group == session:",
        test=_EXEC + "a_process_in_another_group_of_the_programs_session_ends_with_it",
    ),
    Bug(
        "a stopped program does not get SIGTERM",
        "sidecar/wrapper/group.py",
        right="send(self._command, signal.SIGCONT, left)",
        wrong="send(self._command, signal.SIGURG, left)",
        test=_EXEC + "a_stopped_program_ends_too",
    ),
    Bug(
        "the loss of the watchdog is not noticed",
        "sidecar/wrapper/run.py",
        right="if group.watchdog_ended:",
        wrong="if group.watchdog_ended and self.stopping:",
        test=_WATCHDOG + "a_program_without_its_watchdog_is_stopped_and_started_again",
    ),
    Bug(
        "COMMAND gets the wrapper's modified environment",
        "sidecar/wrapper/group.py",
        right="environment = first_environment() |",
        wrong="environment = dict(os.environb) |",
        test=_EXEC + "the_program_gets_the_environment_and_the_signals_as_the_wrapper_got_them",
    ),
    Bug(
        "with --once a term that ends early starts another term",
        "sidecar/wrapper/run.py",
        right="if self._arguments.once and started:",
        wrong="if self._arguments.once and not started:",
        test=_EXEC + "with_once_a_term_that_ends_first_is_said_and_the_status_is_the_programs",
    ),
    Bug(
        "a lease is acquired for a command that does not exist",
        "sidecar/wrapper/run.py",
        right="        _find(arguments.command[0])\n",
        wrong="",
        test=_EXEC + "a_command_that_is_not_there_is_127_and_takes_no_lease",
    ),
    Bug(
        "the pauses are never reset",
        "sidecar/wrapper/pauses.py",
        right="if worked >= STEADY:",
        wrong="if worked >= 2 * STEADY:",
        test=_PAUSES + "they_begin_again_after_a_minute_of_work_and_not_before",
    ),
]
