"""Seeded bugs in the sidecar's election, listener, Redis client, scripts, name lookups and log."""

from tests.mutants.trial import Bug

_HERD = "tests/sidecar/election/test_herd.py::test_"
_LATE = "tests/sidecar/election/test_lease_late_calls.py::test_"
_CANDIDATE = "tests/sidecar/election/test_candidate.py::test_"
_PROCESS = "tests/sidecar/test_process.py::test_"
_CONTROL = "tests/sidecar/test_control.py::test_"
_WAITING = "tests/sidecar/test_control_waiting.py::test_"
_RESIGN = "tests/sidecar/test_control_resign.py::test_"
_STORE = "tests/sidecar/redis/test_store.py::test_"
_FAILURES = "tests/sidecar/redis/test_store_failures.py::test_"
_SCRIPTS = "tests/sidecar/redis/test_scripts.py::test_"
_FAULTS = "tests/sidecar/redis/test_scripts_faults.py::test_"
_FENCE = "tests/sidecar/commands/test_fence.py::test_"
_RIGHTS = "tests/sidecar/redis/test_rights.py::test_"
_HOSTILE = "tests/sidecar/test_hostile_texts.py::test_"
_GUARD = "tests/sidecar/redis/test_scripts_guard.py::test_"
_WATCH = "tests/sidecar/redis/test_watch.py::test_"
_OUTPUT = "tests/runtime/test_log_output.py::test_"
_STOPPING = "tests/sidecar/test_stopping.py::test_"

WIRING = [
    Bug(
        "the held request of a dead client is not cancelled",
        "sidecar/run.py",
        right="handler_cancellation=True",
        wrong="handler_cancellation=False",
        test=_PROCESS + "a_client_that_dies_during_a_held_request_leaves_no_demand",
    ),
    Bug(
        "FAILOVER_GUARD is read but not applied",
        "sidecar/run.py",
        right="failover_guard=settings.failover_guard",
        wrong="failover_guard=False",
        test=_PROCESS + "the_failover_guard_and_min_replicas_apply_when_they_are_set",
    ),
    Bug(
        "MIN_REPLICAS is read but not applied",
        "sidecar/run.py",
        right="min_replicas=settings.min_replicas",
        wrong="min_replicas=0",
        test=_PROCESS + "the_failover_guard_and_min_replicas_apply_when_they_are_set",
    ),
    Bug(
        "a warning filter for another program raises errors in the sidecar",
        "runtime/environment.py",
        right="        warnings.resetwarnings()\n",
        wrong="",
        test="tests/sidecar/test_environment.py::test_no_library_switch_is_in_effect_when_the_sidecar_runs",
    ),
    Bug(
        "library switches for another program apply to the sidecar",
        "sidecar/__main__.py",
        right="ignored = remove_ignored()",
        wrong="ignored: list[str] = []",
        test="tests/sidecar/test_environment.py::test_the_sidecar_leads_with_every_library_switch_set",
    ),
]

ELECTION = [
    Bug(
        "the deadline of a term is counted from the reply",
        "sidecar/election/candidate.py",
        right="lease.replied(call, result, now)",
        wrong="lease.replied(Call(call.kind, now, call.give_up_at, call.token, call.tenure), result, now)",
        test=_CANDIDATE + "a_term_starts_before_its_call_is_sent",
    ),
    Bug(
        "a Redis error counts as a renewal",
        "sidecar/election/candidate.py",
        right="lease.failed(call, now, may_execute=result.may_execute)",
        wrong="lease.replied(call, Reply(Outcome.RENEWED, lease.instance_id, call.token, 30.0), now)",
        test=_CANDIDATE + "without_replies_a_term_ends_at_its_deadline",
    ),
    Bug(
        "a sent call counts as not sent",
        "sidecar/election/candidate.py",
        right="may_execute=result.may_execute",
        wrong="may_execute=False",
        test=_CANDIDATE + "an_acquire_with_a_lost_reply_is_released_when_demand_has_ended",
    ),
    Bug(
        "the release after a resign waits for the loop",
        "sidecar/election/candidate.py",
        right="self._act()  # the release is sent before anything else happens",
        wrong="self._wake.set()",
        test=_CANDIDATE + "a_resign_sends_the_release_before_it_returns",
    ),
    Bug(
        "the resigned client's held requests are answered before the next leader sends its calls",
        "sidecar/election/candidate.py",
        right="            self._unpublished.add(name)\n",
        wrong="",
        test=_CANDIDATE + "the_release_notice_of_a_resign_is_always_published_after_the_release",
    ),
    Bug(
        "the held requests of the resigned client are not answered",
        "sidecar/election/candidate.py",
        right="        self._unpublished.discard(name)\n        self._publish()",
        wrong="        self._publish()\n        self._unpublished.discard(name)",
        test=_CANDIDATE + "the_release_notice_of_a_resign_is_always_published_after_the_release",
    ),
    Bug(
        "the acquire after a notification waits for the loop",
        "sidecar/election/candidate.py",
        right="self._leases[name].noticed(self._clock())\n        self._act()",
        wrong="self._leases[name].noticed(self._clock())\n        self._wake.set()",
        test=_CANDIDATE + "a_notice_sends_the_acquire_before_it_returns",
    ),
    Bug(
        "a notification during a connect starts a second call",
        "sidecar/election/candidate.py",
        right="if self._asleep_until > -inf:\n            self._begin_calls()",
        wrong="self._begin_calls()",
        test=_CANDIDATE + "a_notice_while_the_loop_connects_sends_nothing",
    ),
    Bug(
        "a result is logged before the held requests are answered",
        "sidecar/election/candidate.py",
        right="await asyncio.sleep(0)  # held requests are answered before the results are logged and counted",
        wrong="pass",
        test=_CANDIDATE + "a_held_request_is_answered_before_the_acquire_is_logged",
    ),
    Bug(
        "a notification during a call is forgotten",
        "sidecar/election/candidate.py",
        right="self._leases[name].noticed(self._clock())",
        wrong="self._leases[name].noticed(self._clock()) if self._asleep_until > 0 else None",
        test=_CANDIDATE + "a_notice_during_a_call_causes_a_look_after_it",
    ),
    Bug(
        "a resign during an acquire is forgotten",
        "sidecar/election/candidate.py",
        right="resigned = self._leases[name].resigned(self._clock(), token, client)",
        wrong="resigned = self._asleep_until > 0 and self._leases[name].resigned(self._clock(), token, client)",
        test=_CANDIDATE + "a_resign_while_an_acquire_is_under_way_leaves_the_lease_to_the_others",
    ),
    Bug(
        "a request does not wake the loop",
        "sidecar/election/candidate.py",
        right="        if self._leases[name].asked(now):  # else nothing is due earlier than before\n    ",
        wrong="        if not self._leases[name].asked(now):\n    ",
        test=_CANDIDATE + "a_request_wakes_the_sleeping_loop",
    ),
    Bug(
        "the replies of a round trip are assigned to the wrong leases",
        "sidecar/election/candidate.py",
        right="zip(calls.items(), results, strict=True)",
        wrong="zip(calls.items(), reversed(results), strict=True)",
        test=_CANDIDATE + "each_reply_of_a_round_trip_reaches_its_lease",
    ),
    Bug(
        "a drain ends as soon as one lease is given up",
        "sidecar/election/candidate.py",
        right="while not all(lease.drained",
        wrong="while not any(lease.drained",
        test=_CANDIDATE + "a_drain_ends_when_every_lease_is_released",
    ),
    Bug(
        "a disconnected client counts as demand forever",
        "sidecar/election/candidate.py",
        right="self._leases[name].unhold(ticket, now, answered=answered)",
        wrong="answered and self._leases[name].unhold(ticket, now, answered=answered)",
        test=_WAITING + "a_client_that_disconnects_during_a_held_request_leaves_no_demand",
    ),
    Bug(
        "a sidecar gives up its lease at SIGTERM before the work ends",
        "sidecar/election/lease.py",
        right="self._drain_until = now + self",
        wrong="self._grants.until = now\n            self._drain_until = now + self",
        test="tests/sidecar/client/test_real_sidecar.py::test_a_sidecar_with_sigterm_waits_for_the_work_to_end",
    ),
    Bug(
        "any client may get a grant of an adopted term",
        "sidecar/election/lease.py",
        right="return previous.owner",
        wrong="return TermOwner()",
        test="tests/sidecar/election/test_grants.py::"
        "test_a_term_adopted_after_its_deadline_still_belongs_to_its_client",
    ),
    Bug(
        "a request is held although its answer is known",
        "sidecar/election/claims.py",
        right="if now < granted_until else 0.0",
        wrong="",
        test="tests/sidecar/election/test_grants.py::"
        "test_a_client_refused_because_of_an_earlier_grant_is_answered_once_that_grant_ends",
    ),
    Bug(
        "a request is held after its answer has changed",
        "sidecar/election/candidate.py",
        right="min(wait, valid_for)",
        wrong="wait",
        test=_WAITING + "a_client_refused_because_of_another_clients_grant_is_answered_once_that_grant_ends",
    ),
    Bug(
        "a lease counts as following before the first reply of Redis",
        "sidecar/election/facts.py",
        right="self._connected: bool | None = None",
        wrong="self._connected: bool | None = True",
        test="tests/sidecar/election/test_lease.py::test_before_the_first_reply_of_redis_the_state_is_disconnected_and_not_following",
    ),
    Bug(
        "a change while the watch was disconnected is missed",
        "sidecar/redis/watch.py",
        right="            self._all_changed()  # changes before this moment were not reported\n",
        wrong="",
        test=_WATCH + "after_its_connection_was_killed_the_watch_reports_every_lease_and_continues[wheel]",
    ),
    Bug(
        "a held request is not answered when the term ends during a call",
        "sidecar/election/candidate.py",
        right="ends = [now + lease",
        wrong="ends = [inf + lease",
        test="tests/sidecar/election/test_candidate.py::"
        "test_a_held_request_is_answered_at_the_end_of_the_term_while_the_loop_waits_for_redis",
    ),
    Bug(
        "held requests are not answered when a drain begins during a call",
        "sidecar/election/candidate.py",
        right="lease.drain(self._clock())\n        self._publish()",
        wrong="lease.drain(self._clock())",
        test="tests/simulation/test_drivers.py::test_the_simulated_sidecar_behaves_like_the_real_sidecar_in_rare_sequences",
    ),
    Bug(
        "the server's time is forgotten before the renewal if the heartbeat is short",
        "sidecar/protocol.py",
        right="2 * max(self.heartbeat, self.shortest_renewal)",
        wrong="2 * self.heartbeat",
        test=_CANDIDATE + "renewals_have_a_known_server_time_however_short_the_heartbeat_is",
    ),
    Bug(
        "the pause after a failed call grows with the ttl without a limit",
        "sidecar/protocol.py",
        right="return min(self.shortest_renewal, 1.0)",
        wrong="return self.shortest_renewal",
        test=_CANDIDATE + "an_acquire_without_a_reply_is_repeated_soon_even_if_the_lease_is_long",
    ),
    Bug(
        "after a guarded reply any client gets the term of the previous process",
        "sidecar/election/facts.py",
        right="    Outcome.GUARDED,\n    Outcome.SUPERSEDED,\n",
        wrong="    Outcome.SUPERSEDED,\n",
        test=_PROCESS + "a_sidecar_restarted_during_the_failover_guard_gives_its_term_to_no_new_client",
    ),
    Bug(
        "after a look any client gets the term of the previous process",
        "sidecar/election/facts.py",
        right="    Outcome.GUARDED,\n    Outcome.SUPERSEDED,\n",
        wrong="    Outcome.GUARDED,\n",
        test="tests/sidecar/election/test_grants.py::"
        "test_a_look_that_finds_the_term_of_the_previous_process_gives_it_to_no_new_client",
    ),
    Bug(
        "after a failover any client gets an older term",
        "sidecar/election/lease.py",
        right="previous is not None and token < previous.token",
        wrong="False",
        test="tests/sidecar/election/test_grants.py::"
        "test_an_older_term_that_a_failover_restores_is_given_to_no_new_client",
    ),
    Bug(
        "a failed connection is retried at each wake-up",
        "sidecar/election/candidate.py",
        right="self._open_at = self._clock() + self._reconnects.next()",
        wrong="self._open_at = self._clock()",
        test="tests/simulation/test_drivers.py::test_the_simulated_sidecar_behaves_like_the_real_sidecar_in_rare_sequences",
    ),
    Bug(
        "a connection is replaced while a call over it is under way",
        "sidecar/election/candidate.py",
        right="if self._under_way is not None:\n            return",
        wrong="if False:\n            return",
        test=_CANDIDATE + "a_connection_is_not_replaced_while_a_call_over_it_is_under_way",
    ),
    Bug(
        "only calls retry a failed connection",
        "sidecar/election/candidate.py",
        right="return not self._store.connected and not self._draining",
        wrong="return False",
        test="tests/simulation/test_drivers.py::test_the_simulated_sidecar_behaves_like_the_real_sidecar_in_rare_sequences",
    ),
]

LATE = [
    Bug(
        "a drain ends while an acquire may still execute",
        "sidecar/election/facts.py",
        right=" or self._unanswered.pending",
        wrong="",
        test=_LATE + "a_drain_waits_until_no_acquire_can_still_execute",
    ),
    Bug(
        "any reply settles an acquire that may still execute",
        "sidecar/election/claims.py",
        right="if sent_at >= self.until:",
        wrong="if sent_at > -inf:",
        test=_LATE + "a_reply_to_a_later_call_does_not_settle_an_acquire_that_may_still_execute",
    ),
    Bug(
        "a resign during an acquire does not make the candidate yield",
        "sidecar/election/lease.py",
        right="elif self._in_flight is not None and self._in_flight.kind is Kind.ACQUIRE:",
        wrong="elif self._in_flight is not None and self._in_flight.kind is Kind.LOOK:",
        test=_LATE + "a_resign_during_an_acquire_yields_even_if_the_client_asks_again_at_once",
    ),
    Bug(
        "a request from before a resign removes the demand of a later request",
        "sidecar/election/claims.py",
        right="if ticket == self._withdrawals:",
        wrong="if self.holds > 0:",
        test=_LATE + "the_end_of_a_held_request_from_before_a_resign_does_not_reduce_later_demand",
    ),
    Bug(
        "a release is abandoned while the key exists",
        "sidecar/election/lease.py",
        right="now >= self._to_release.lead_until + self.timings.margin:",
        wrong="now >= self._to_release.lead_until:",
        test=_LATE + "a_release_is_tried_until_the_key_must_have_expired",
    ),
]

LISTENER = [
    Bug(
        "a request is held past the grant",
        "sidecar/election/claims.py",
        right="return grant_ttl / 2 if",
        wrong="return grant_ttl * 3 if",
        test=_WAITING + "while_leading_a_request_is_held_for_half_a_grant_at_most",
    ),
    Bug(
        "expires_in is measured from the answer, not from the request",
        "sidecar/election/candidate.py",
        right="grant = lease.grant(arrived, now, client, token)",
        wrong="grant = lease.grant(arrived, now, client, token)\n        grant = grant and grant + now - arrived",
        test=_CONTROL + "a_grant_starts_when_its_request_arrives",
    ),
    Bug(
        "each client that asks gets a grant",
        "sidecar/control.py",
        right="return self._fields(name, *self._candidate.granted(name, *lease_request))",
        wrong='return self._fields(name, *self._candidate.granted(name, lease_request.arrived, "", None))',
        test="tests/sidecar/client/test_real_sidecar.py::test_only_one_of_two_clients_of_a_sidecar_leads_at_a_time",
    ),
    Bug(
        'a restarted sidecar answers "not leader" before the first reply of Redis',
        "sidecar/control.py",
        right="await self._candidate.first_replies(names, self._timings.call_limit)",
        wrong="",
        test=_CONTROL + "a_restarted_sidecar_answers_the_first_request_with_the_same_term",
    ),
    Bug(
        "the first request waits for its whole limit although the call has failed",
        "sidecar/election/facts.py",
        right="""        if self._connected is None:
            self._version += 1
""",
        wrong="",
        test=_WAITING + "a_call_that_fails_before_the_first_reply_of_redis_ends_the_hold",
    ),
    Bug(
        'an immediate answer of a restarted sidecar is "not leader" before a reply',
        "sidecar/control.py",
        right=" or not self._candidate.heard_from_redis(names):",
        wrong=":",
        test=_CONTROL + "a_restarted_sidecar_answers_the_first_request_with_the_same_term",
    ),
    Bug(
        "a request with an immediate answer does not count as demand",
        "sidecar/control.py",
        right="""            self._candidate.asked(name)
        answer = """,
        wrong="""            pass
        answer = """,
        test=_CONTROL + "a_request_on_the_fast_path_counts_as_demand",
    ),
    Bug(
        "versions repeat after a restart",
        "sidecar/control.py",
        right="self._boot = boot",
        wrong='self._boot = "0"',
        test=_WAITING + "a_version_is_never_repeated_after_a_restart",
    ),
    Bug(
        "a resign ends any term",
        "sidecar/control.py",
        right='self._candidate.resigned(name, _token(request.query.get("token")), _client(request.headers))',
        wrong="self._candidate.resigned(name, None, _client(request.headers))",
        test=_RESIGN + "a_resign_may_name_its_term_and_releases_no_other_term",
    ),
    Bug(
        "a resign needs no header",
        "sidecar/control.py",
        right="if not _client(request.headers):",
        wrong="if not name:",
        test=_RESIGN + "a_resign_needs_the_header",
    ),
    Bug(
        "a leader whose fence was deleted waits for a heartbeat",
        "sidecar/protocol.py",
        right="self.holder is None or (self.outcome is Outcome.SUPERSEDED and self.token is None)",
        wrong="self.holder is None",
        test="tests/sidecar/election/test_lease.py::test_a_leader_whose_fence_is_lost_acquires_at_once",
    ),
    Bug(
        "the sidecar logs that it has given up a lease whose release Redis did not answer",
        "sidecar/run.py",
        right='if kept := ", ".join(candidate.not_given_up):',
        wrong='if kept := "":',
        test="tests/sidecar/test_stopping.py::test_sigterm_ends_the_sidecar_while_redis_does_not_answer",
    ),
    Bug(
        "a key with an empty value counts as no key",
        "sidecar/redis/replies.py",
        right="holder=holder if holder or left != _NO_KEY else None",
        wrong="holder=holder or None",
        test="tests/sidecar/redis/test_replies.py::test_a_key_with_an_empty_value_differs_from_no_key",
    ),
    Bug(
        "a new connection clears the trouble of every lease",
        "sidecar/election/candidate.py",
        right="            if trouble == self._not_connected:",
        wrong="            if trouble is not None:",
        test=_CANDIDATE + "a_new_connection_does_not_clear_the_trouble_of_a_call",
    ),
    Bug(
        "every lease in the state 'following' counts as held by another candidate",
        "sidecar/telemetry.py",
        right="float(outcome is Outcome.HELD and bool(status.holder))",
        wrong="float(status.state is State.FOLLOWING)",
        test="tests/sidecar/test_telemetry.py::test_a_lease_follows_a_holder_only_if_another_candidate_has_the_key",
    ),
    Bug(
        "the listener cuts the name of a client",
        "sidecar/control.py",
        right='headers.get(CLIENT, "")',
        wrong='headers.get(CLIENT, "")[:64]',
        test=_RESIGN + "clients_whose_names_differ_only_at_the_end_do_not_both_lead",
    ),
    Bug(
        "a name with the prefix of a loopback address counts as loopback",
        "runtime/local_requests.py",
        right='name.lower() in ("localhost", "localhost.")',
        wrong='name.lower().startswith(("localhost", "127.0.0.1"))',
        test=_RESIGN + "a_resign_needs_a_loopback_host",
    ),
]

REDIS = [
    Bug(
        "scripts are sent without a deadline",
        "sidecar/redis/script_calls.py",
        right="            clock.at(call.give_up_at, call.sent_at),",
        wrong="            2**52,",
        test=_STORE + "a_call_that_arrives_after_its_deadline_has_no_effect[wheel-acquire]",
    ),
    Bug(
        "an estimate of the server's time never expires",
        "sidecar/protocol.py",
        right=" or now > self._observed_at + self._valid_for:",
        wrong=":",
        test="tests/sidecar/test_server_clock.py::test_an_old_reply_is_ignored_because_clock_rates_differ",
    ),
    Bug(
        "a deadline in server time counts from an old reply",
        "sidecar/redis/store.py",
        right="clock.observe(time, self._clock())\n        return reply",
        wrong="return reply",
        test=_STORE + "the_clock_estimate_recovers_after_a_slow_reply[wheel]",
    ),
    Bug(
        "a Redis error counts as a reply",
        "sidecar/redis/store.py",
        right="return self._refused(error, failure) if refuses_command(error) else failure",
        wrong="return Reply(Outcome.RENEWED, self._instance_id, ttl=self._timings.ttl)",
        test=_FAILURES + "a_missing_right_is_reported_as_no_permission[wheel-rights0]",
    ),
    Bug(
        "a sent call is reported as not sent",
        "sidecar/redis/store.py",
        right="problem = failure_of(error, may_execute=sent is not None)",
        wrong="problem = failure_of(error, may_execute=False)",
        test=_STORE + "an_acquire_after_a_lost_reply_adopts_its_own_term[wheel]",
    ),
    Bug(
        "the connection is kept after an error",
        "sidecar/redis/store.py",
        right="            await self.close()  # after an error",
        wrong="            pass  # after an error",
        test=_FAILURES + "a_primary_that_became_a_replica_is_reported_as_read_only[wheel]",
    ),
    Bug(
        "a round trip has the limit of its longest call",
        "sidecar/redis/store.py",
        right="min(keyed.call.give_up_at",
        wrong="max(keyed.call.give_up_at",
        test=_STORE + "a_round_trip_ends_at_the_earliest_limit_of_its_calls[wheel]",
    ),
    Bug(
        "a term counts before the replicas have confirmed it",
        "sidecar/redis/store.py",
        right="results = [] if self._min_replicas else results",
        wrong="results = list(results)",
        test=_FAILURES + "a_term_is_not_confirmed_if_the_replicas_reply_too_late[wheel]",
    ),
    Bug(
        "a term counts as confirmed without any replica",
        "sidecar/redis/store.py",
        right=">= self._min_replicas",
        wrong=">= 0",
        test=_FAILURES + "a_term_is_not_confirmed_without_enough_replicas[wheel]",
    ),
]

SCRIPTS = [
    Bug(
        "a late request executes",
        "sidecar/scripts/prelude.lua",
        right="if now > deadline then return 'late' end",
        wrong="",
        test=_STORE + "a_call_that_arrives_after_its_deadline_has_no_effect[wheel-acquire]",
    ),
    Bug(
        "a renewal does not compare the holder",
        "sidecar/scripts/renew.lua",
        right="if not our_term() then",
        wrong="if not holder then",
        test=_SCRIPTS + "renew_and_release_compare_id_and_token[wheel]",
    ),
    Bug(
        "a release does not compare the token",
        "sidecar/scripts/release.lua",
        right="if not our_term() then",
        wrong="if not ours() then",
        test=_SCRIPTS + "a_late_release_of_an_earlier_term_does_not_change_the_new_term[wheel]",
    ),
    Bug(
        "renewal and release do not compare the tenure",
        "sidecar/scripts/prelude.lua",
        right="and last == token and last_tenure == tenure end",
        wrong="and last == token end",
        test=_SCRIPTS + "a_superseded_tenure_can_neither_renew_nor_release[wheel]",
    ),
    Bug(
        "an acquire takes a key with another holder",
        "sidecar/scripts/acquire.lua",
        right="if holder and holder ~= id then",
        wrong="if holder and holder ~= id and string.upper(holder) == 'DISABLED' then",
        test=_SCRIPTS + "an_acquire_does_not_change_a_held_lease_and_returns_its_holder[wheel]",
    ),
    Bug(
        "tokens come from INCR alone",
        "sidecar/scripts/acquire.lua",
        right="math.max((tonumber(last or '') or 0) + 1, now)",
        wrong="(tonumber(last or '') or 0) + 1",
        test=_SCRIPTS + "tokens_increase_after_the_fence_was_deleted[wheel]",
    ),
    Bug(
        "tokens come from the server's clock alone",
        "sidecar/scripts/acquire.lua",
        right="math.max((tonumber(last or '') or 0) + 1, now)",
        wrong="now",
        test=_SCRIPTS + "tokens_increase_within_one_microsecond_and_after_a_clock_step_back[wheel]",
    ),
    Bug(
        "a release publishes no message",
        "sidecar/scripts/release.lua",
        right="redis.pcall('PUBLISH', direct_channel, relay and 'released, relay' or 'released')",
        wrong="0",
        test=_SCRIPTS + "release_deletes_and_publishes_in_one_script[wheel]",
    ),
    Bug(
        "there is no failover guard",
        "sidecar/scripts/acquire.lua",
        right="if wait > 0 then",
        wrong="if wait < 0 then",
        test=_GUARD + "after_a_server_change_no_new_term_starts_for_one_ttl[wheel]",
    ),
    Bug(
        "the guard lets the holder of the key adopt its term",
        "sidecar/scripts/acquire.lua",
        right="if wait > 0 then",
        wrong="if wait > 0 and holder ~= id then",
        test=_GUARD + "the_guard_also_delays_an_acquire_by_the_holder_of_the_key[wheel]",
    ),
    Bug(
        "the guard identifies a server by its run id alone",
        "sidecar/scripts/prelude.lua",
        right="if run == run_id and (repl or replid) == replid then",
        wrong="if run == run_id then",
        test=_GUARD + "a_promoted_replica_counts_as_a_server_change_even_if_its_process_is_old[wheel]",
    ),
    Bug(
        "an old process that was promoted is not guarded after the loss of the fence",
        "sidecar/scripts/prelude.lua",
        right="not changed and not promoted then",
        wrong="not changed then",
        test=_GUARD + "after_the_loss_of_the_fence_the_leader_waits_for_one_ttl_on_a_server_that_was_promoted[True]",
    ),
    Bug(
        "a token far ahead of the clock is incremented",
        "sidecar/scripts/prelude.lua",
        right="tonumber(last) > now + day",
        wrong="tonumber(last) > 2 ^ 53",
        test=_FAULTS
        + "every_script_refuses_a_token_more_than_a_day_ahead_and_does_not_change_it[wheel-just-over-a-day]",
    ),
    Bug(
        "a fence is repaired before its lease has been disabled for a ttl",
        "sidecar/commands/fence.py",
        right="until = clock() + ttl",
        wrong="until = clock()",
        test=_FENCE + "a_fence_that_refuses_every_term_is_repaired_while_the_lease_is_disabled[ahead]",
    ),
    Bug(
        "a fence is repaired although its lease is not disabled",
        "sidecar/scripts/fence.lua",
        right="if not disabled() then",
        wrong="if false then",
        test=_FENCE + "the_script_repairs_only_an_unchanged_fence_of_a_disabled_lease[wheel]",
    ),
    Bug(
        "a fence that changed after the read is repaired",
        "sidecar/scripts/fence.lua",
        right="if state ~= ARGV[8] then",
        wrong="if state == '' then",
        test=_FENCE + "the_script_repairs_only_an_unchanged_fence_of_a_disabled_lease[wheel]",
    ),
    Bug(
        "a release without the right to publish fails",
        "sidecar/scripts/release.lua",
        right="local published = redis.pcall('PUBLISH'",
        wrong="local published = call('PUBLISH'",
        test=_RIGHTS + "a_missing_right_has_the_documented_effect_and_is_named[wheel-+publish]",
    ),
    Bug(
        "a refused SET is noticed only after the fence has changed",
        "sidecar/scripts/acquire.lua",
        right="call('SET', key, id, holder and 'NX' or 'XX', 'PX', ttl)",
        wrong="",
        test=_RIGHTS + "a_missing_right_has_the_documented_effect_and_is_named[wheel-+set]",
    ),
    Bug(
        "one refused channel ends the whole watch",
        "sidecar/redis/watch.py",
        right="if failure.kind not in _REFUSALS:",
        wrong='if words[0] == "SUBSCRIBE" or failure.kind not in _REFUSALS:',
        test=_RIGHTS + "a_missing_right_has_the_documented_effect_and_is_named[wheel-&__redis__:invalidate]",
    ),
    Bug(
        "a restored right is never used",
        "sidecar/redis/watch.py",
        right="retry_at = inf if self.refusal is None else",
        wrong="retry_at = inf if self.refusal is None or self.mode is WatchMode.NOTICES else",
        test=_RIGHTS + "each_fallback_of_the_watch_is_logged_once_with_its_effect_and_so_is_the_recovery[wheel]",
    ),
    Bug(
        "a holder is printed without escapes",
        "sidecar/commands/look.py",
        right="one_line(holder)",
        wrong="holder",
        test=_HOSTILE + "every_command_escapes_holders_and_tokens[escapes]",
    ),
    Bug(
        "a text log contains line breaks from untrusted texts",
        "runtime/log_lines.py",
        right="line = one_line(super().formatMessage(record), MESSAGE)",
        wrong="line = super().formatMessage(record)",
        test=_HOSTILE + "the_log_and_the_status_of_a_sidecar_escape_text_from_redis[text]",
    ),
    Bug(
        "a line break in an error forges a log line",
        "runtime/log_lines.py",
        right='f"  {one_line(line, TRACEBACK_WIDTH)}"',
        wrong="one_line(line, TRACEBACK_WIDTH)",
        test="tests/runtime/test_log_lines.py::test_a_text_log_contains_no_control_character_and_no_forged_line",
    ),
    Bug(
        "a log that nobody reads stops the sidecar",
        "runtime/log_output.py",
        right="            self._queue.put(line)\n",
        wrong="            self._write(line)\n            self._written += len(line)\n",
        test="tests/sidecar/test_stopping.py::test_a_sidecar_whose_log_cannot_be_written_leads_and_ends_in_order",
    ),
    Bug(
        "a terminal that nobody reads stops the process",
        "runtime/log_output.py",
        right="            self._queue.put(line)\n",
        wrong="            if _has_room(self._stream.fileno(), 0):\n"
        "                self._write(line[: select.PIPE_BUF])\n"
        "            self._queue.put(line)\n",
        test=_OUTPUT + "a_terminal_that_nobody_reads_does_not_delay_the_caller",
    ),
    Bug(
        "a loss after the thread's last line is not reported",
        "runtime/log_output.py",
        right="dropped > self._noticed and self._queue.empty()",
        wrong="False",
        test=_OUTPUT + "lines_beyond_the_limit_are_lost_and_a_line_counts_them",
    ),
    Bug(
        "the last lines of a process are lost at its exit",
        "runtime/log_output.py",
        right="        self._queue.put(done)\n        done.wait(END)\n",
        wrong="",
        test=_OUTPUT + "a_reader_that_comes_late_gets_the_last_lines_of_a_process",
    ),
    Bug(
        "a second signal kills a sidecar that waits for the reader of its log",
        "runtime/stop_signals.py",
        right="signal.signal(number, signal.SIG_IGN)",
        wrong="signal.signal(number, signal.SIG_DFL)",
        test=_STOPPING + "further_signals_do_not_end_a_sidecar_that_waits_for_the_reader_of_its_log",
    ),
    Bug(
        "the end of a process waits forever for a reader of the log",
        "runtime/log_output.py",
        right="done.wait(END)",
        wrong="done.wait()",
        test=_OUTPUT + "a_process_ends_with_its_own_status_although_its_log_cannot_be_written",
    ),
    Bug(
        "the log lines that wait for a reader have no limit",
        "runtime/log_output.py",
        right="waiting + len(line) <= KEPT",
        wrong="waiting >= 0",
        test=_OUTPUT + "lines_beyond_the_limit_are_lost_and_a_line_counts_them",
    ),
    Bug(
        "a disabled lease with a bad fence is not reported as disabled",
        "sidecar/scripts/prelude.lua",
        right="return problem and disabled() and 'disabled' or problem",
        wrong="return problem",
        test=_FAULTS + "a_disabled_lease_is_reported_as_disabled_even_if_its_fence_is_invalid[wheel-seven]",
    ),
]

_LOOKUP = "tests/runtime/test_lookup.py::test_"

CONNECTION = [
    Bug(
        "a retry starts a second lookup while the first one runs",
        "runtime/lookup.py",
        right="lookup = self._under_way.get(key)\n        if lookup is None:",
        wrong="lookup = None\n        if lookup is None:",
        test=_LOOKUP + "a_lookup_survives_its_callers_and_the_next_caller_gets_the_result_once",
    ),
    Bug(
        "the result of a lookup is used twice",
        "runtime/lookup.py",
        right="kept = self._kept.pop(key, None)",
        wrong="kept = self._kept.get(key)",
        test=_LOOKUP + "a_lookup_survives_its_callers_and_the_next_caller_gets_the_result_once",
    ),
    Bug(
        "the result of a lookup from before a change of server is used",
        "runtime/lookup.py",
        right="            lookup.outdated = True\n",
        wrong="            pass\n",
        test=_LOOKUP + "a_lookup_during_a_change_of_server_is_repeated_after_it_ends",
    ),
    Bug(
        "the end of the process waits for lookups that hang",
        "runtime/lookup.py",
        right="daemon=True",
        wrong="daemon=False",
        test=_LOOKUP + "a_hanging_lookup_does_not_delay_the_end_of_the_process[uvloop]",
    ),
    Bug(
        "the first address of a name uses the whole time limit",
        "runtime/connecting.py",
        right="happy_eyeballs_delay=min(STAGGER, share)",
        wrong="happy_eyeballs_delay=None",
        test="tests/runtime/test_connecting.py::test_the_other_addresses_are_tried_if_one_drops_packets",
    ),
    Bug(
        "an address that failed is tried first the next time",
        "sidecar/redis/route.py",
        right="last=self._failed)",
        wrong="last=())",
        test="tests/sidecar/redis/test_connection.py::test_after_a_failure_the_other_address_of_the_name_is_tried_first",
    ),
    Bug(
        "the watch chooses its own server",
        "sidecar/redis/connection.py",
        right="self._make(route=self._route, leading=False,",
        wrong="self._make(route=self._route, leading=True,",
        test="tests/sidecar/redis/test_connection.py::test_a_companion_goes_to_the_server_of_the_leading_connection",
    ),
    Bug(
        "the watch stays on a server that the election has left",
        "sidecar/redis/route.py",
        right="each.address != self._address]:\n            companion.abort()\n",
        wrong="each.address != self._address]:\n            pass\n",
        test="tests/sidecar/redis/test_connection.py::"
        "test_a_companion_is_closed_once_the_leading_connection_has_another_server",
    ),
    Bug(
        "the watch follows a new connection of the election before its login",
        "sidecar/redis/connection.py",
        right="            connected = await self._route.lead(self.host, self.port)\n",
        wrong="            connected = await self._route.lead(self.host, self.port)\n"
        "            self.address = connected.getpeername()\n"
        "            self._route.leads(self)\n",
        test="tests/sidecar/redis/test_connection.py"
        "::test_the_watch_stays_when_a_replacement_of_the_elections_connection_fails",
    ),
    Bug(
        "the end of an idle connection is not noticed",
        "sidecar/redis/store.py",
        right="        connection.when_ended = lambda: self._ended(connection)\n",
        wrong="",
        test=_CANDIDATE + "a_connection_that_the_server_closes_is_replaced_before_a_call_needs_it",
    ),
    Bug(
        "a connection that ends with the answers to its greeting is used",
        "sidecar/redis/store.py",
        right="if connection.ended:",
        wrong="if False:",
        test="tests/sidecar/redis/test_tls.py"
        "::test_a_connection_that_ends_with_the_answers_to_its_greeting_is_not_used",
    ),
    Bug(
        "a call is written to a stream that has ended",
        "sidecar/redis/store.py",
        right="if self._connection is not None and not self._connection.writable:",
        wrong="if False:",
        test=_STORE + "the_end_of_an_idle_connection_is_noticed_and_does_not_fail_the_next_call[wheel]",
    ),
    Bug(
        "the end of a connection is noticed only after the event loop reports it",
        "sidecar/redis/connection.py",
        right="return bool(poll.poll(0))",
        wrong="return False",
        test=_STORE + "a_closed_connection_is_noticed_before_a_call_is_written[wheel]",
    ),
    Bug(
        "a call that was not executed is not repeated at once",
        "sidecar/redis/store.py",
        right="if not again or self._clock()",
        wrong="if True or self._clock()",
        test=_STORE + "a_call_is_retried_at_once_if_the_connection_could_not_be_made[wheel]",
    ),
    Bug(
        "a sent call is repeated when its stream ends",
        "sidecar/redis/store.py",
        right="if sent is None and could_not_connect(error):",
        wrong="if could_not_connect(error):",
        test=_STORE + "a_call_that_was_sent_is_not_retried_after_its_connection_ends[wheel]",
    ),
    Bug(
        "a call is repeated after an error from inside its script",
        "sidecar/redis/repeats.py",
        right="isinstance(error, _REFUSALS) and not _FROM_INSIDE.search(str(error))",
        wrong="isinstance(error, _REFUSALS)",
        test=_STORE + "a_call_is_retried_only_if_the_reply_refuses_the_eval_itself",
    ),
    Bug(
        "a reply that grants a term without a token is accepted",
        "sidecar/redis/replies.py",
        right="if reply.token is None and",
        wrong="if False and",
        test="tests/sidecar/redis/test_malformed.py::test_a_malformed_reply_fails_only_its_call"
        "[a term without a token-once greeted]",
    ),
    Bug(
        "a number in a reply has no upper limit",
        "sidecar/redis/replies.py",
        right="if not smallest <= found < limit:",
        wrong="if found < smallest:",
        test="tests/sidecar/redis/test_malformed.py::test_a_malformed_reply_fails_only_its_call"
        "[a number of watches beyond all numbers-once greeted]",
    ),
    Bug(
        "a repeated call gets a new time limit",
        "sidecar/redis/store.py",
        right="self._round_trip([calls[index] for index in again], None, beside)",
        wrong="self._round_trip([KeyedCall(calls[index].key, calls[index].call._replace("
        "give_up_at=self._clock() + 15)) for index in again], None, beside)",
        test=_STORE + "a_call_is_retried_only_if_the_reply_refuses_the_eval_itself",
    ),
    Bug(
        "attempts to reconnect follow each other without a pause",
        "sidecar/redis/reconnects.py",
        right="Backoff(FIRST, longest,",
        wrong="Backoff(0.0, longest,",
        test=_CANDIDATE + "while_redis_is_unreachable_connections_are_tried_after_doubling_pauses",
    ),
    Bug(
        "a look that finds the sidecar's own id reports a duplicate instance id",
        "sidecar/election/candidate.py",
        right="return call.kind is not Kind.LOOK and",
        wrong="return",
        test=_CANDIDATE + "a_look_that_finds_the_sidecars_own_id_reports_no_duplicate_instance_id",
    ),
    Bug(
        "the eviction policy is read only once",
        "sidecar/redis/store.py",
        right="asks_policy = self._clock() - self._policy_at > _POLICY_AGE",
        wrong="asks_policy = False",
        test=_STORE + "calls_also_read_the_eviction_policy_once_the_last_value_is_old[wheel]",
    ),
    Bug(
        "a command whose refusal ended the connection is sent again on the next connection",
        "sidecar/redis/optional.py",
        right="            self._known.add(*self._last[:2])\n",
        wrong="            pass\n",
        test="tests/sidecar/redis/test_fakeredis.py::test_a_whole_term_works_without_a_guard[Redis 8]",
    ),
    Bug(
        "an error about the whole server counts as the refusal of one command",
        "sidecar/redis/optional.py",
        right="isinstance(error, NoPermissionError) or _refuses(str(error), command)",
        wrong="str(error)",
        test="tests/sidecar/redis/test_optional.py::test_an_error_about_the_whole_server_is_no_refusal_of_the_command",
    ),
    Bug(
        "an error with one word of a command counts as its refusal",
        "sidecar/redis/optional.py",
        right="set(names) <= set(_WORD.findall(text))",
        wrong="bool(set(names) & set(_WORD.findall(text)))",
        test="tests/sidecar/redis/test_optional.py::test_an_error_about_the_whole_server_is_no_refusal_of_the_command",
    ),
    Bug(
        "an open connection sends a command again that it left out before",
        "sidecar/redis/optional.py",
        right="self._left_out.get(command)",
        wrong="self._known.current().get(command)",
        test="tests/sidecar/redis/test_optional.py"
        "::test_a_command_whose_refusal_ends_the_connection_is_left_out_for_a_time",
    ),
    Bug(
        "a server without TLS that has answered is said to expect TLS",
        "sidecar/redis/connection.py",
        right="if not self._is_heard and (error :=",
        wrong="if (error :=",
        test="tests/sidecar/redis/test_failures.py"
        "::test_a_server_that_has_answered_before_it_ends_the_connection_is_not_said_to_expect_tls",
    ),
    Bug(
        "a sidecar without calls shows outdated facts of the server",
        "sidecar/redis/server_facts.py",
        right="await self._ask()",
        wrong="pass",
        test="tests/sidecar/redis/test_server_facts.py::test_without_calls_the_status_follows_changes_of_the_server[wheel]",
    ),
    Bug(
        "an unanswered request for the facts ends a connection that answers calls",
        "sidecar/redis/server_facts.py",
        right="if connection.reached and self._store.idle:",
        wrong="if connection.reached:",
        test="tests/sidecar/redis/test_server_facts.py"
        "::test_a_hanging_new_connection_does_not_end_the_connection_of_the_election[True]",
    ),
    Bug(
        "a new connection that cannot be made ends the open connection of an idle sidecar",
        "sidecar/redis/server_facts.py",
        right="if connection.reached and self._store.idle:",
        wrong="if self._store.idle:",
        test="tests/sidecar/redis/test_server_facts.py"
        "::test_a_hanging_new_connection_does_not_end_the_connection_of_the_election[False]",
    ),
    Bug(
        "an idle sidecar wakes up although its facts are recent",
        "sidecar/redis/server_facts.py",
        right="max(self._look, self._old - self._store.facts_age)",
        wrong="self._look",
        test="tests/sidecar/redis/test_server_facts.py::test_while_the_facts_are_recent_the_task_sleeps",
    ),
    Bug(
        "a watch requests a sign of life although a renewal's notice is due",
        "sidecar/redis/watch.py",
        right="is WatchMode.RELAYED else DIRECT_INTERVALS)",
        wrong="is WatchMode.RELAYED else 1)",
        test=_WATCH + "the_notice_of_a_renewal_comes_before_the_watch_requests_a_sign_of_life[wheel]",
    ),
    Bug(
        "a hanging lookup is reported as a server that does not answer",
        "sidecar/redis/login.py",
        right="note(cancelled, connection.named, connection.awaited())",
        wrong="note(cancelled, connection.named)",
        test="tests/sidecar/redis/test_failures.py::test_a_hanging_name_lookup_is_reported_as_the_cause",
    ),
    Bug(
        "a server that answers no command gets a hint about TLS",
        "sidecar/redis/connection.py",
        right="self.address is not None and not self._has_transport",
        wrong="self.address is not None",
        test="tests/sidecar/redis/test_failures.py::"
        "test_a_timeout_after_the_tls_handshake_does_not_suggest_a_server_without_tls",
    ),
    Bug(
        "a call continues after the end of a drain",
        "sidecar/election/lease.py",
        right="min(give_up_at, self._drain_until or inf)",
        wrong="give_up_at",
        test="tests/sidecar/election/test_lease_giving_up.py::test_no_call_outlives_the_end_of_a_drain",
    ),
    Bug(
        "all candidates of a large fleet call at once after a notice",
        "sidecar/election/lease.py",
        right="now + herd.delay(receivers, self._uniform))",
        wrong="now)",
        test=_HERD + "a_follower_in_a_large_fleet_looks_within_the_spread_after_a_notice",
    ),
    Bug(
        "all candidates of a large fleet call at once at an expiry",
        "sidecar/election/lease.py",
        right="self._uniform(0.001, 0.004) + herd.delay(self._watchers, self._uniform)",
        wrong="self._uniform(0.001, 0.004)",
        test=_HERD + "the_calls_of_a_large_fleet_at_an_expiry_and_at_the_end_of_the_guard_are_spread",
    ),
    Bug(
        "the candidates are not counted",
        "sidecar/scripts/prelude.lua",
        right="local function held_otherwise()\n  count_watchers()",
        wrong="local function held_otherwise()",
        test=_SCRIPTS + "a_reply_to_a_follower_contains_the_numbers_of_watches_of_the_lease[wheel]",
    ),
    Bug(
        "all candidates of a large fleet keep a direct watch",
        "sidecar/election/herd.py",
        right="return needs_direct and (direct <= MAX_DIRECT or",
        wrong="return needs_direct and (True or",
        test=_HERD + "if_a_thousand_candidates_decide_at_the_same_moment_about_eight_direct_watches_stay",
    ),
    Bug(
        "no relayed watch becomes direct again",
        "sidecar/election/herd.py",
        right="return needs_direct and uniform(0,",
        wrong="return False and uniform(0,",
        test=_HERD
        + "if_a_thousand_candidates_decide_at_the_same_moment_about_twice_the_missing_watches_become_direct[4]",
    ),
    Bug(
        "all relayed watches become direct at the same moment",
        "sidecar/election/herd.py",
        right="uniform(0, watchers - direct) < 2 * (SMALL_FLEET - direct)",
        wrong="direct < SMALL_FLEET",
        test=_HERD
        + "if_a_thousand_candidates_decide_at_the_same_moment_about_twice_the_missing_watches_become_direct[4]",
    ),
    Bug(
        "a candidate without a client keeps a direct watch of a large fleet",
        "sidecar/election/herd.py",
        right="needs_direct = campaigns or",
        wrong="needs_direct = True or",
        test=_HERD + "in_a_large_fleet_a_candidate_that_does_not_campaign_has_no_direct_watch",
    ),
    Bug(
        "a relay has a deadline",
        "sidecar/scripts/relay.lua",
        right="deadline = now",
        wrong="",
        test="tests/sidecar/election/test_large_fleet.py::"
        "test_a_release_reaches_the_client_of_a_relayed_watch_if_no_direct_watch_has_a_client",
    ),
    Bug(
        "a relay reports another process with the same id",
        "sidecar/election/candidate.py",
        right="return  # it compares no term, so its outcome shows no trouble",
        wrong="pass",
        test="tests/sidecar/election/test_large_fleet.py::test_a_relay_that_finds_the_candidates_own_id_is_no_trouble",
    ),
    Bug(
        "operators count as candidates that relay",
        "sidecar/scripts/prelude.lua",
        right="if with_direct == 0 then",
        wrong="if true then",
        test=_SCRIPTS + "only_the_watches_of_candidates_that_relay_count_as_direct[wheel]",
    ),
    Bug(
        "a candidate relays a notice although the lease is held again",
        "sidecar/election/lease.py",
        right="nobody_acquires = reply.outcome is Outcome.GUARDED or reply.holder is not None",
        wrong="nobody_acquires = False",
        test=_HERD + "a_candidate_relays_nothing_once_the_lease_is_held_again_or_guarded",
    ),
    Bug(
        "a candidate relays a notice that came during a call before it sends its own acquire",
        "sidecar/election/lease.py",
        right="self._relay_at = max(self._relay_at, self._after_own_call(now))",
        wrong="pass",
        test=_HERD + "a_candidate_acquires_before_it_relays_a_notice_that_came_during_a_call",
    ),
    Bug(
        "enable does not notify the relayed watches",
        "sidecar/scripts/enable.lua",
        right="redis.pcall('PUBLISH', KEYS[1] .. ':vacant:changed', 'vacant')",
        wrong="",
        test="tests/sidecar/commands/test_disabling.py::test_enable_notifies_direct_and_relayed_watches",
    ),
    Bug(
        "the limit of direct watches above which a release asks for relays differs from the candidates' limit",
        "sidecar/scripts/release.lua",
        right="local MAX_DIRECT = 12",
        wrong="local MAX_DIRECT = 13",
        test=_SCRIPTS + "a_release_notifies_the_relayed_watches_itself_if_they_or_the_direct_watches_are_few"
        "[wheel-13-2]",
    ),
    Bug(
        "a relay comes before the acquire of the same candidate",
        "sidecar/election/lease.py",
        right="if call is None and now >= self._relay_at",
        wrong="if now >= self._relay_at",
        test=_HERD + "a_candidate_acquires_before_it_relays_even_if_both_are_due",
    ),
    Bug(
        "a new leader keeps its relayed watch",
        "sidecar/election/lease.py",
        right="self.watches_directly, self._relay_at = True, inf",
        wrong="self._relay_at = inf",
        test=_HERD + "a_leader_has_a_direct_watch",
    ),
    Bug(
        "a candidate with a direct watch waits as if the whole fleet had a direct watch",
        "sidecar/election/lease.py",
        right="receivers = self._direct if self.watches_directly else self._watchers",
        wrong="receivers = self._watchers",
        test=_HERD + "a_candidate_with_a_direct_watch_calls_at_once_because_few_candidates_get_its_notices",
    ),
    Bug(
        "the reply to a relay counts as an answer for clients",
        "sidecar/election/lease.py",
        right="if call.kind is not Kind.RELAY:",
        wrong="if True:",
        test=_HERD + "a_candidate_without_a_client_relays_a_notice_and_its_reply_is_not_an_answer_for_clients",
    ),
    Bug(
        "a candidate relays no notice",
        "sidecar/election/candidate.py",
        right="self._leases[name].relay_noticed(self._clock())",
        wrong="self._leases[name].noticed(self._clock())",
        test="tests/sidecar/election/test_large_fleet.py::"
        "test_a_release_reaches_the_client_of_a_relayed_watch_if_no_direct_watch_has_a_client",
    ),
    Bug(
        "a relay notifies the candidates while the lease is held",
        "sidecar/scripts/relay.lua",
        right="if not holder then",
        wrong="if true then",
        test=_SCRIPTS
        + "a_relay_notifies_the_relayed_watches_only_while_the_lease_is_vacant_and_changes_nothing[wheel]",
    ),
    Bug(
        "a release does not notify a few relayed watches itself",
        "sidecar/scripts/release.lua",
        right=" or with_relayed <= FEW_RELAYED",
        wrong="",
        test=_SCRIPTS
        + "a_release_notifies_the_relayed_watches_itself_if_they_or_the_direct_watches_are_few[wheel-8-24]",
    ),
    Bug(
        "a release with a few direct watches notifies no relayed watches",
        "sidecar/scripts/release.lua",
        right="with_direct <= FEW_DIRECT or ",
        wrong="",
        test=_SCRIPTS
        + "a_release_notifies_the_relayed_watches_itself_if_they_or_the_direct_watches_are_few[wheel-4-30]",
    ),
    Bug(
        "a watch ignores a new choice until its connection ends",
        "sidecar/redis/watch.py",
        right="self._direct[name], self._chosen_again = direct, True",
        wrong="self._direct[name], self._connection = direct, None",
        test=_WATCH + "a_relayed_watch_reports_a_vacant_lease_and_no_other_change[wheel]",
    ),
    Bug(
        "a watch connects without a pause after a choice",
        "sidecar/redis/watch.py",
        right="        self._chosen_again = False\n        connection = self._connection",
        wrong="        connection = self._connection",
        test=_WATCH + "a_choice_while_there_is_no_connection_does_not_shorten_the_pauses",
    ),
    Bug(
        "a user without the right to relayed notices has no watch",
        "sidecar/redis/watch.py",
        right="if not set(relayed) <= set(channels):",
        wrong="if False:",
        test=_WATCH + "a_refused_relayed_channel_costs_one_more_connection_and_is_logged_once[wheel]",
    ),
    Bug(
        "a task with CAMPAIGN=false tries to lead",
        "sidecar/election/lease.py",
        right="looks = self.follows_only or now < self._rest.until",
        wrong="looks = now < self._rest.until",
        test="tests/sidecar/election/test_follows_only.py::test_a_task_that_follows_only_never_leads_and_reports_it",
    ),
    Bug(
        "a task with CAMPAIGN=false looks at a vacant key without a pause",
        "sidecar/election/lease.py",
        right="follows = others or self.follows_only",
        wrong="follows = others",
        test="tests/sidecar/election/test_follows_only.py::test_a_task_that_follows_only_looks_once_a_heartbeat_and_never_acquires[True]",
    ),
    Bug(
        "a proxy gets the answer that a follower leads",
        "sidecar/control.py",
        right="status=200 if leads else 503)",
        wrong="status=200)",
        test="tests/sidecar/test_control.py::test_leader_probe_gets_its_answer_as_a_status_on_both_listeners",
    ),
    Bug(
        "a lease may have the name `.` or `..`, although no client can ask for it",
        "sidecar/settings.py",
        right='if name in (".", ".."):',
        wrong="if not name:",
        test="tests/sidecar/test_settings.py::test_an_invalid_value_is_refused_by_name_in_one_line_without_secrets",
    ),
]

BUGS = CONNECTION + WIRING + ELECTION + LATE + LISTENER + REDIS + SCRIPTS
