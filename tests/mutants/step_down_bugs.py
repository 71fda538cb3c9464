"""Bugs in the history and in the step-down, each found by a test of the rules or by a test with a real Redis."""

from tests.mutants.trial import Bug

_RULES = "tests/sidecar/election/test_step_down.py::test_"
_SCRIPTS = "tests/sidecar/redis/test_scripts_step_down.py::test_"
_HISTORY = "tests/sidecar/redis/test_history.py::test_"
_TERMS = "tests/sidecar/test_history.py::test_"
_CONTROL = "tests/sidecar/test_control_history.py::test_"

STEP_DOWN = [
    Bug(
        "a second release of the same term does not begin the rest again",
        "sidecar/election/lease.py",
        right="self._begin_release(term, now, why or self._unwanted())",
        wrong="self._begin_release(term, now, self._unwanted())",
        test=_RULES + "a_release_after_a_late_acquire_of_the_same_term_begins_the_rest_again",
    ),
    Bug(
        "a renewal ignores the step-down",
        "sidecar/scripts/renew.lua",
        right="stepping_down() and 'stepping_down' or 'renewed'",
        wrong="'renewed'",
        test=_SCRIPTS + "a_renewal_reports_a_step_down_to_the_holder[wheel]",
    ),
    Bug(
        "a renewal that reports a step-down opens the guard and does not extend the key",
        "sidecar/scripts/renew.lua",
        right="if left < tonumber(ARGV[7])",
        wrong="if stepping_down() then vouch() return answer('stepping_down') end\nif left < tonumber(ARGV[7])",
        test=_SCRIPTS + "a_renewal_reports_a_step_down_to_the_holder[wheel]",
    ),
    Bug(
        "a step-down keeps the demand of a silent client",
        "sidecar/election/lease.py",
        right="        if reason is Reason.CLIENT_SILENT:",
        wrong="        if reason is Reason.CLIENT_SILENT and not term.step_down:",
        test=_RULES + "after_a_step_down_nothing_is_acquired_for_a_silent_client_whose_grant_has_ended",
    ),
    Bug(
        "a release after a step-down is given up while the key lives",
        "sidecar/election/lease.py",
        right="if reply.outcome in (Outcome.RENEWED, Outcome.STEPPING_DOWN):",
        wrong="term.step_down = reply.outcome is Outcome.STEPPING_DOWN\n        if reply.outcome is Outcome.RENEWED:",
        test=_RULES + "a_release_is_tried_until_the_key_must_have_expired",
    ),
    Bug(
        "a step-down ends a term with any token",
        "sidecar/scripts/prelude.lua",
        right="return last and step_down and string.match(step_down, '^0*(%d+)$') == last",
        wrong="return step_down",
        test=_SCRIPTS + "a_step_down_of_an_earlier_term_does_not_end_a_later_term[wheel]",
    ),
    Bug(
        "a restarted sidecar continues to lead in spite of a step-down",
        "sidecar/scripts/acquire.lua",
        right="if stepping_down() then",
        wrong="if false then",
        test=_SCRIPTS + "an_adopted_term_that_was_asked_to_step_down_is_released[wheel]",
    ),
    Bug(
        "a restarted sidecar does not restore the ttl of a key that it must release",
        "sidecar/scripts/acquire.lua",
        right="if left < 0 or left > ttl then",
        wrong="if false then",
        test=_SCRIPTS + "adopting_a_term_restores_the_ttl_of_its_key[wheel-None]",
    ),
    Bug(
        "another client's resign ends a grant of the previous process",
        "sidecar/election/facts.py",
        right="term = self._term or self._to_release\n        return term is None or not term.owner",
        wrong="term = self._term\n        return term is None or not term.owner",
        test=_RULES + "the_step_down_of_an_adopted_term_waits_for_the_grant_of_the_previous_processs_client",
    ),
    Bug(
        "a restarted sidecar ignores the previous client of a term that it must give up",
        "sidecar/election/lease.py",
        right="TermOwner() if reply.outcome is Outcome.ACQUIRED else self._owner_of(reply.token)",
        wrong="self._owner_of(reply.token) if reply.outcome is Outcome.ADOPTED else TermOwner()",
        test=_RULES + "the_step_down_of_an_adopted_term_waits_for_the_grant_of_the_previous_processs_client",
    ),
    Bug(
        "a new term cannot begin without the right to HDEL",
        "sidecar/scripts/acquire.lua",
        right="redis.pcall('HDEL', fence, 'step_down')",
        wrong="call('HDEL', fence, 'step_down')",
        test=_SCRIPTS + "without_the_right_to_hdel_the_next_term_still_leads[wheel]",
    ),
    Bug(
        "a leader grants its lease while it steps down",
        "sidecar/election/facts.py",
        right="return self._drain_until is not None or term.step_down",
        wrong="return self._drain_until is not None",
        test=_RULES + "a_step_down_ends_leadership_at_once",
    ),
    Bug(
        "the state is 'following' during a step-down while the client works",
        "sidecar/election/facts.py",
        right="self._drain_until is not None or self._stepping_down():",
        wrong="self._drain_until is not None:",
        test=_RULES + "a_step_down_ends_leadership_at_once",
    ),
    Bug(
        "the sidecar campaigns again after a term ends during a step-down",
        "sidecar/election/lease.py",
        right="now >= term.lead_until and not term.step_down:",
        wrong="now >= term.lead_until:",
        test=_RULES + "a_term_that_ends_during_a_step_down_is_released",
    ),
    Bug(
        "the loop does not sleep while the sidecar steps down",
        "sidecar/election/lease.py",
        right="times += [] if self._gives_up(self._term) else [self._due]",
        wrong="times += [self._due]",
        test=_RULES + "nothing_is_renewed_while_a_step_down_waits_for_the_client",
    ),
    Bug(
        "no rest begins if the release after a step-down gets no reply before the key expires",
        "sidecar/election/lease.py",
        right="            self._left(now)  # its key has expired",
        wrong="            self._to_release = None",
        test=_RULES + "the_rest_counts_from_the_end_of_the_key",
    ),
    Bug(
        "DISABLED ends the rest after a step-down",
        "sidecar/election/rest.py",
        right="others = reply.outcome not in _NOTHING_READ and (reply.outcome is Outcome.HELD or newer)",
        wrong="others = others or newer",
        test=_RULES + "a_disable_does_not_end_the_rest",
    ),
    Bug(
        "another leader that has already released its lease does not end the rest",
        "sidecar/election/rest.py",
        right="(reply.outcome is Outcome.HELD or newer)",
        wrong="reply.outcome is Outcome.HELD",
        test=_RULES + "the_token_of_another_leader_that_has_already_released_ends_the_rest",
    ),
    Bug(
        "the task's own late acquire ends the rest",
        "sidecar/election/rest.py",
        right=" and reply.holder != me",
        wrong="",
        test=_RULES + "a_newer_token_of_this_candidate_does_not_end_the_rest",
    ),
    Bug(
        "an old step-down shortens the rest after a resign",
        "sidecar/election/rest.py",
        right="        if now >= self.until:\n            self._token = None\n",
        wrong="",
        test=_RULES + "a_resign_after_the_rest_starts_a_new_pause",
    ),
    Bug(
        "a notification of a step-down during a call is lost",
        "sidecar/election/lease.py",
        right="        if self._step_down_noticed:\n            self.step_down_noticed(now)\n",
        wrong="",
        test=_RULES + "a_step_down_notice_during_a_call_is_not_lost",
    ),
    Bug(
        "a step-down wakes every follower",
        "sidecar/redis/watch.py",
        right="STEP_DOWN_NOTICE: self._step_down,",
        wrong="STEP_DOWN_NOTICE: self._changed,",
        test="tests/sidecar/redis/test_watch.py::test_a_step_down_is_not_reported_as_a_change_of_the_key[wheel-rights0]",
    ),
    Bug(
        "the sidecar's watch does not forward a step-down",
        "sidecar/run.py",
        right="candidate.noticed, candidate.step_down_noticed,",
        wrong="candidate.noticed, lambda _: None,",
        test="tests/sidecar/client/test_step_down.py::test_a_watch_reports_a_step_down_long_before_the_next_renewal",
    ),
]

HISTORY = [
    Bug(
        "a Redis user without the right to the history cannot lead",
        "sidecar/scripts/prelude.lua",
        right="local appended = redis.pcall('XADD',",
        wrong="local appended = call('XADD',",
        test=_HISTORY + "an_account_without_rights_to_the_history_still_leads[wheel]",
    ),
    Bug(
        "the history grows without a limit",
        "sidecar/scripts/prelude.lua",
        right="'MAXLEN', '~', '1000', ",
        wrong="",
        test=_HISTORY + "the_length_of_a_history_is_bounded[wheel]",
    ),
    Bug(
        "the history of a key with a hash tag is in another slot",
        "sidecar/scripts/prelude.lua",
        right="(string.find(key, '{', 1, true) and key or '{' .. key .. '}') -- named",
        wrong="('{' .. key .. '}') -- named",
        test=_HISTORY + "the_scripts_write_the_stream_that_is_read[wheel]",
    ),
    Bug(
        "a re-adopted term is recorded again",
        "sidecar/scripts/acquire.lua",
        right="if not adopted and ARGV[8] ~= '1' then record",
        wrong="if ARGV[8] ~= '1' then record",
        test=_HISTORY + "a_call_that_begins_or_ends_no_term_appends_nothing[wheel]",
    ),
    Bug(
        "an unconfirmed acquire counts as a term",
        "sidecar/scripts/acquire.lua",
        right="if not adopted and ARGV[8] ~= '1' then record",
        wrong="if not adopted then record",
        test=_HISTORY + "an_unconfirmed_acquire_is_not_recorded_as_a_term[wheel]",
    ),
    Bug(
        "with MIN_REPLICAS a term is recorded one heartbeat late",
        "sidecar/election/lease.py",
        right="self._due = now if self._replicated else call.sent_at",
        wrong="self._due = call.sent_at",
        test=_RULES + "with_min_replicas_the_first_renewal_follows_the_acquire_at_once",
    ),
    Bug(
        "a release has no reason",
        "sidecar/redis/script_calls.py",
        right="            call.reason,\n",
        wrong='            "",\n',
        test=_CONTROL + "a_term_is_reported_while_it_lasts_and_after_its_end",
    ),
    Bug(
        "a last term without a recorded release is shown as current although another term holds the key",
        "sidecar/history.py",
        right="holds = not terms and (entry.holder, entry.token) == (holder, token)",
        wrong="holds = not terms",
        test=_TERMS + "the_last_term_is_shown_as_current_while_key_and_fence_agree",
    ),
    Bug(
        "an older term is shown as the holder's current term",
        "sidecar/history.py",
        right="holds = not terms and (",
        wrong="holds = (",
        test=_TERMS + "only_the_last_term_can_be_current",
    ),
    Bug(
        "each request for the history reads from Redis",
        "sidecar/redis/history.py",
        right="if pause <= 0 or last.result is None:",
        wrong="if True:",
        test=_HISTORY + "the_history_is_read_at_most_once_a_second_for_any_number_of_readers[wheel]",
    ),
    Bug(
        "the entries of the stream are shown unchecked",
        "sidecar/redis/history.py",
        right="[one_line(each) for each in answer]",
        wrong="[str(each) for each in answer]",
        test=_HISTORY + "any_entry_of_the_stream_is_shown_bounded_and_printable[wheel]",
    ),
    Bug(
        "an unreadable history causes a traceback",
        "sidecar/control.py",
        right="except HistoryUnavailable as error:",
        wrong="except ZeroDivisionError as error:",
        test=_CONTROL + "an_error_of_redis_is_reported_in_json_with_its_cause",
    ),
]

BUGS = [*STEP_DOWN, *HISTORY]
