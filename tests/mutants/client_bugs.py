"""Bugs in the client library, each found by a test of the library with a fake or a real sidecar."""

from tests.mutants.trial import Bug

_LEADERSHIP = "tests/sidecar/client/test_leadership.py::test_"
_HOSTILE = "tests/sidecar/client/test_hostile.py::test_"
_RESIGN = "tests/sidecar/client/test_resign.py::test_"
_THREAD = "tests/sidecar/client/test_work_thread.py::test_"

BUGS = [
    Bug(
        "is_leader does not look at the clock",
        "sidecar/client/leadership.py",
        right="return self.remaining() > 0",
        wrong="return self._term is not None",
        test=_LEADERSHIP + "leadership_ends_by_the_clock_exactly_at_the_deadline",
    ),
    Bug(
        "the client counts the grant from the answer",
        "sidecar/client/sidecar_api.py",
        right="return parse(body, name, sent_at)",
        wrong="return parse(body, name, self._clock())",
        test=_LEADERSHIP + "the_deadline_counts_from_the_time_before_the_request_was_sent",
    ),
    Bug(
        "an answer revives a term that is over",
        "sidecar/client/term.py",
        right="if self._ended or now >= self._deadline:",
        wrong="if self._ended:",
        test=_LEADERSHIP + "a_late_answer_does_not_revive_a_term",
    ),
    Bug(
        "a failed request extends the grant",
        "sidecar/client/leadership.py",
        right="            if answer is None:\n                continue\n            if answer.deadline is None",
        wrong="            if answer is None:\n                grant.extend(grant._deadline + 1.0)\n"
        "                continue\n            if answer.deadline is None",
        test=_LEADERSHIP + "work_ends_before_the_deadline_when_the_sidecar_is_frozen",
    ),
    Bug(
        "an HTTP error counts as an answer",
        "sidecar/client/sidecar_api.py",
        right='if status != 200:\n            raise Unknown(f"the answer is HTTP {status}")',
        wrong='if status == 0:\n            raise Unknown(f"the answer is HTTP {status}")',
        test=_HOSTILE + "a_hostile_sidecar_makes_no_client_lead_and_gets_few_requests[HTTP 500]",
    ),
    Bug(
        "a grant of any length is accepted",
        "sidecar/client/sidecar_api.py",
        right="not 0 < expires_in <= LONGEST_GRANT",
        wrong="not 0 < expires_in",
        test=_HOSTILE + "an_answer_that_breaks_the_contract_is_unknown",
    ),
    Bug(
        "an answer about another lease is accepted",
        "sidecar/client/sidecar_api.py",
        right="if lease != name:",
        wrong="if not lease:",
        test=_HOSTILE + "an_answer_that_breaks_the_contract_is_unknown",
    ),
    Bug(
        "a grant that names another holder is accepted",
        "sidecar/client/sidecar_api.py",
        right="if holder != instance_id:",
        wrong="if holder is None:",
        test=_HOSTILE + "an_answer_that_breaks_the_contract_is_unknown",
    ),
    Bug(
        "a grant of another term extends the work of the current term",
        "sidecar/client/leadership.py",
        right="if answer.deadline is None or (answer.token, answer.instance_id) != (term.token, term.holder):",
        wrong="if answer.deadline is None:",
        test=_LEADERSHIP + "another_token_or_instance_is_another_term",
    ),
    Bug(
        "the client resigns before its work has ended",
        "sidecar/client/leadership.py",
        right="stopped = job.cancel()\n",
        wrong="stopped = job.cancel()\n        await self._sidecar.resign(self.name)\n",
        test=_LEADERSHIP + "work_is_awaited_to_its_end_before_the_resign_and_the_next_term",
    ),
    Bug(
        "the end of the event loop resigns the lease before the work has ended",
        "sidecar/client/leadership.py",
        right="asking.done() and not asking.cancelled() and asking.exception() is None\n",
        wrong="asking.done() and asking.exception() is None\n",
        test=_LEADERSHIP + "the_end_of_the_event_loop_awaits_the_work_before_the_resign",
    ),
    Bug(
        "a program may resign between two terms of an active run",
        "sidecar/client/leadership.py",
        right="        if self._running:  # even",
        wrong="        if self._term is not None:  # even",
        test=_LEADERSHIP + "resign_is_refused_while_run_is_active_even_between_two_terms",
    ),
    Bug(
        "the client campaigns while its work is being cancelled",
        "sidecar/client/leadership.py",
        right="        dropped = reported = False\n",
        wrong="        self._poll.stopped, dropped, reported = False, True, False\n",
        test=_LEADERSHIP + "no_request_is_sent_while_the_work_unwinds",
    ),
    Bug(
        "the client closes the connection of its held request before it resigns",
        "sidecar/client/leadership.py",
        right="            resign = self._sidecar.start_resign(",
        wrong="            if asking is not None:\n                asking.cancel()\n"
        "            resign = self._sidecar.start_resign(",
        test=_RESIGN + "terms_end_and_begin_with_two_connections",
    ),
    Bug(
        "the client continues to ask after its work has ended",
        "sidecar/client/leadership.py",
        right="            if self._poll.stopped:\n",
        wrong="            if self._poll.stopped and (await self._poll.next(lambda: 1.0) or True):\n",
        test=_RESIGN + "no_request_follows_the_work_even_if_a_request_is_still_held",
    ),
    Bug(
        "the client keeps its held request while its work is being cancelled",
        "sidecar/client/leadership.py",
        right="                dropped = True\n                asking.cancel()",
        wrong="                dropped = True",
        test=_RESIGN + "a_held_request_is_cancelled_while_the_work_unwinds_for_long",
    ),
    Bug(
        "the client waits until the sidecar answers its held request",
        "sidecar/client/sidecar_api.py",
        right="timeout=ANSWERED",
        wrong="timeout=None",
        test=_RESIGN + "an_unanswered_request_after_the_resign_delays_nothing",
    ),
    Bug(
        "the resign of a term that is over ends any term",
        "sidecar/client/leadership.py",
        right="term.token if over and term is not None else None",
        wrong="None",
        test=_LEADERSHIP + "work_that_returns_because_its_term_ended_has_no_result",
    ),
    Bug(
        "the client asks before its resign has an answer",
        "sidecar/client/sidecar_api.py",
        right="is not None and not resign.done():\n            await",
        wrong="is not None and resign.cancelled():\n            await",
        test=_HOSTILE + "no_request_is_sent_while_a_resign_may_still_arrive",
    ),
    Bug(
        "the work is stopped by a timer instead of the clock",
        "sidecar/client/leadership.py",
        right="timeout=min(left, TICK)",
        wrong="timeout=left",
        test=_LEADERSHIP + "work_stops_at_its_deadline_even_if_the_loop_slept",
    ),
    Bug(
        "the work continues until the deadline",
        "sidecar/client/term.py",
        right="self._stop_at = deadline - self._reserve",
        wrong="self._stop_at = deadline",
        test=_LEADERSHIP + "work_ends_before_the_deadline_when_the_sidecar_is_frozen",
    ),
    Bug(
        "the reserve for the end of the work shrinks with each answer",
        "sidecar/client/term.py",
        right="max(self._reserve, min(self._stop_before, max(deadline - now, 0.0) / 4))",
        wrong="min(self._stop_before, max(deadline - now, 0.0) / 4)",
        test=_LEADERSHIP + "answers_with_the_same_deadline_do_not_shorten_the_time_in_which_the_work_ends",
    ),
    Bug(
        "the cancellation of the work does not wait for its thread",
        "sidecar/client/work_thread.py",
        right="                interruption = cancelled\n",
        wrong="                raise\n",
        test=_THREAD + "a_thread_ends_before_the_resign_when_its_term_ends",
    ),
    Bug(
        "a thread's term does not end when the work is cancelled",
        "sidecar/client/term.py",
        right="remaining=lambda: 0.0 if cancelled.is_set() else self.remaining()",
        wrong="remaining=self.remaining",
        test=_THREAD + "a_thread_ends_before_the_resign_when_run_is_cancelled",
    ),
    Bug(
        "a thread keeps the interpreter from exiting",
        "sidecar/client/work_thread.py",
        right="daemon=True",
        wrong="daemon=False",
        test=_THREAD + "a_thread_that_never_returns_does_not_keep_the_process_alive",
    ),
    Bug(
        "the end of the process waits for a thread that never ends",
        "sidecar/client/leadership.py",
        right="                    term.threads.abandon()",
        wrong="                    pass",
        test=_THREAD + "the_process_waits_for_a_thread_until_its_deadline",
    ),
    Bug(
        "a thread that outlives the work is not reported",
        "sidecar/client/term.py",
        right="            self.on_late_check(self.token)\n",
        wrong="",
        test=_THREAD + "a_thread_that_the_work_left_running_is_reported_when_it_checks_its_term",
    ),
    Bug(
        "work that blocks the event loop is not reported",
        "sidecar/client/leadership.py",
        right="if grant.overdue and not reported:",
        wrong="if False:",
        test=_THREAD + "work_that_blocks_the_event_loop_past_its_deadline_is_reported",
    ),
]
