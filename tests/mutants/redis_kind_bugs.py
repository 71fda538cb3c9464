"""Seeded bugs in the code for several Redis servers (cluster, sentinels, ElastiCache Serverless) and different ttls."""

from tests.mutants.trial import Bug

_CLUSTER = "tests/sidecar/redis/test_cluster.py::test_"
_SENTINELS = "tests/sidecar/redis/test_sentinels.py::test_"
_GUARD = "tests/sidecar/redis/test_scripts_guard.py::test_"
_WATCH = "tests/sidecar/redis/test_watch.py::test_"
_COMMANDS = "tests/sidecar/commands/test_commands_in_a_cluster.py::test_"
_SLOW_LOOKUP = "a_command_waits_for_a_lookup_that_takes_5_s_because_the_first_name_server_is_dead"
_KIND = "tests/sidecar/test_server_kind.py::test_"

CLUSTER = [
    Bug(
        "a redirected call has a deadline in the old node's time",
        "sidecar/redis/store.py",
        right="                    clock = self._server_clock\n",
        wrong="",
        test=_CLUSTER + "a_redirected_call_states_its_deadline_in_the_time_of_the_new_node",
    ),
    Bug(
        "a call is not redirected",
        "sidecar/redis/repeats.py",
        right="isinstance(each, NotExecuted) and (each.hop or not hops)}",
        wrong="isinstance(each, NotExecuted) and not each.hop and not hops}",
        test=_CLUSTER + "a_moved_slot_fails_no_call_and_the_watch_follows_it",
    ),
    Bug(
        "ASK counts as MOVED",
        "sidecar/redis/store.py",
        right="once = not isinstance(error, MovedError)",
        wrong="once = False",
        test=_CLUSTER + "only_the_redirected_calls_are_sent_again",
    ),
    Bug(
        "the unknown host of a redirect is looked up as a name",
        "sidecar/redis/cluster.py",
        right='node[0] in ("", _UNKNOWN)',
        wrong='node[0] == ""',
        test=_CLUSTER + "a_redirect_to_an_unknown_host_leads_to_the_same_host",
    ),
    Bug(
        "the error about a silent primary does not name it",
        "sidecar/redis/sentinels.py",
        right='return f"{shown(node)}, which the sentinels name" if node == self._found else ""',
        wrong='return ""',
        test="tests/sidecar/commands/test_commands_and_sentinels.py::test_the_error_about_a_silent_primary_names_it",
    ),
    Bug(
        "all nodes of a cluster except the seed are forgotten",
        "sidecar/redis/cluster.py",
        right="*kept][:REMEMBERED]",
        wrong="*kept][:0]",
        test=_CLUSTER + "the_replica_of_a_killed_seed_node_takes_over",
    ),
    Bug(
        "a failed owner of a slot is retried forever",
        "sidecar/redis/cluster.py",
        right="            self._put_last(self._found)\n        self._owner = None",
        wrong="            self._put_last(self._found)",
        test=_CLUSTER + "the_replica_of_a_killed_seed_node_takes_over",
    ),
    Bug(
        "an error of one key closes the connection of all leases",
        "sidecar/redis/repeats.py",
        right='_ABOUT_ONE_KEY = ("ask", "crossslot", "moved", "noperm", "tryagain", "wrongtype")',
        wrong="_ABOUT_ONE_KEY = ()",
        test="tests/sidecar/redis/test_store_failures.py"
        "::test_a_failure_of_one_lease_keeps_the_connection_of_the_other_lease[wheel]",
    ),
    Bug(
        "an operator's command does not follow a migrating slot",
        "sidecar/commands/connection.py",
        right="                if not connection.redirects:\n",
        wrong="                if not isinstance(error, MovedError):\n",
        test=_COMMANDS + "every_command_reaches_the_node_that_has_the_keys[migrating]",
    ),
    Bug(
        "an operator's command does not wait for a lookup of 5 s",
        "sidecar/commands/connection.py",
        right="CONNECT_LIMIT = 12.0\n",
        wrong="CONNECT_LIMIT = 5.0\n",
        test=_COMMANDS + _SLOW_LOOKUP,
    ),
    Bug(
        "the only known node of a cluster gets a quarter of the limit of a connection",
        "sidecar/redis/cluster.py",
        right="self._limit / (len(tried) + 1)",
        wrong="self._limit / (TRIES + 1)",
        test=_COMMANDS + _SLOW_LOOKUP,
    ),
    Bug(
        "a slow lookup of the owner's name discards the owner",
        "sidecar/redis/cluster.py",
        right="self._found = self._owner = self._owner or await self._ask()",
        wrong="self._found = self._owner or await self._ask()",
        test=_CLUSTER + "an_owner_with_the_name_of_the_seed_is_reached_although_each_lookup_takes_longer_than_a_call",
    ),
    Bug(
        "a slow lookup of a name makes the place of the server doubtful",
        "sidecar/redis/route.py",
        right="            if not self.looks_up(host, port):\n                self.place.doubt()\n",
        wrong="            self.place.doubt()\n",
        test=_CLUSTER + "an_owner_with_the_name_of_the_seed_is_reached_although_each_lookup_takes_longer_than_a_call",
    ),
    Bug(
        "keys of several slots are accepted for a cluster",
        "sidecar/server_kind.py",
        right="    if len(slots) > 1:\n",
        wrong="    if len(slots) > 99:\n",
        test=_KIND + "contradicting_settings_are_refused_in_one_line",
    ),
]

SENTINELS = [
    Bug(
        "a minority of the sentinels names the primary",
        "sidecar/redis/sentinels.py",
        right="if named is not None and 2 * votes > len(nodes):",
        wrong="if named is not None:",
        test=_SENTINELS + "without_a_majority_of_sentinels_no_primary_is_used",
    ),
    Bug(
        "the lookup waits for every sentinel",
        "sidecar/redis/sentinels.py",
        right="return_when=asyncio.FIRST_COMPLETED",
        wrong="return_when=asyncio.ALL_COMPLETED",
        test=_SENTINELS + "a_silent_sentinel_delays_no_connection",
    ),
    Bug(
        "the role of the server that the sentinels name is not checked",
        "sidecar/redis/sentinels.py",
        right='if role != "master":',
        wrong='if role == "":',
        test=_SENTINELS + "a_server_that_reports_another_role_than_primary_receives_no_call",
    ),
    Bug(
        "the sentinels are asked only before a connect",
        "sidecar/redis/connection.py",
        right="            if await self._place.elsewhere():\n",
        wrong="            if False:\n",
        test=_SENTINELS + "after_a_failover_the_new_primary_is_used_even_if_the_old_primary_still_serves",
    ),
    Bug(
        "the sentinels are not asked before an acquire",
        "sidecar/redis/store.py",
        right="if has_acquire(calls):",
        wrong="if False:",
        test=_SENTINELS + "no_lease_is_acquired_at_an_old_primary_over_an_open_connection",
    ),
    Bug(
        "an acquire is sent before the sentinels are asked",
        "sidecar/redis/store.py",
        right=" or (has_acquire(calls) and not connection.assured)",
        wrong="",
        test=_SENTINELS + "no_lease_is_acquired_at_an_old_primary_over_an_open_connection",
    ),
    Bug(
        "an outage of the sentinels fails the renewals of other leases",
        "sidecar/redis/store.py",
        right="withheld = await unassured(own)",
        wrong="await own.assure()",
        test=_SENTINELS + "an_outage_of_the_sentinels_fails_only_acquires[0]",
    ),
    Bug(
        "the guard does not wait for the late demotion of a primary",
        "sidecar/scripts/prelude.lua",
        right="local guard_time = ttl + (tonumber(ARGV[9] or '') or 0)",
        wrong="local guard_time = ttl",
        test=_GUARD + "the_guard_is_longer_if_an_old_primary_may_still_serve[wheel]",
    ),
    Bug(
        "a sidecar with sentinels does not pass the demotion time to the guard",
        "sidecar/run.py",
        right="late_demotion=late_demotion_of(settings.kind),",
        wrong="late_demotion=0.0,",
        test="tests/bench/test_redis_kinds.py::test_a_late_demotion_has_two_believers_only_without_the_guard[true-0]",
    ),
    Bug(
        "a note about one server deletes the notes about other servers",
        "sidecar/scripts/prelude.lua",
        right="string.match(others or '', name .. '=(%d+)')",
        wrong="nil",
        test=_GUARD + "servers_that_alternate_behind_one_address_do_not_postpone_the_end_of_the_guard[wheel]",
    ),
    Bug(
        "a call may take longer than the sentinels' answer is valid",
        "sidecar/settings.py",
        right="if not wrong and checked.call_limit > checked.ttl * MAX_CALL:",
        wrong="if False:",
        test=_KIND + "contradicting_settings_are_refused_in_one_line",
    ),
]

WATCH = [
    Bug(
        "a watch on a server that the election does not use reports full tracking",
        "sidecar/redis/watch.py",
        right="if _INVALIDATED in channels and same_server:",
        wrong="if _INVALIDATED in channels:",
        test=_WATCH + "a_watch_at_another_server_than_the_election_is_off_and_is_reported[the watch]",
    ),
    Bug(
        "the watch stays on the old server when the election's address leads to a new server",
        "sidecar/redis/route.py",
        right="            companion.abort()\n        return True",
        wrong="            pass\n        return True",
        test=_WATCH + "a_watch_at_another_server_than_the_election_is_off_and_is_reported[the election]",
    ),
    Bug(
        "after a restart the watch is compared with the server of the election's old connection",
        "sidecar/redis/route.py",
        right="leader is None or not leader.writable or",
        wrong="leader is None or",
        test=_WATCH + "after_a_restart_of_the_server_the_watch_may_be_connected_before_the_election",
    ),
    Bug(
        "a watch at another server stays off although the election has moved to that server",
        "sidecar/redis/route.py",
        right="if _differ(each, connection) != (each in self._apart)]",
        wrong="if _differ(each, connection)]",
        test=_WATCH + "a_watch_at_another_server_recovers_as_soon_as_the_election_is_at_that_server",
    ),
]

_SHARED = "tests/faults/test_changes_for_all_tasks.py::test_"

SHARED = [
    Bug(
        "a task does not notice that the holder's ttl is longer than its own",
        "sidecar/election/agreement.py",
        right="(reply.ttl or 0.0) > self._limit:",
        wrong="(reply.ttl or 0.0) > 9 * self._limit:",
        test=_SHARED + "a_task_with_a_shorter_ttl_than_the_holder_reports_the_holders_ttl_once",
    ),
    Bug(
        "different ttls are logged at each reply",
        "sidecar/telemetry.py",
        right="if disagreement not in (None, self._disagreements.get(lease)):",
        wrong="if disagreement is not None:",
        test=_SHARED + "a_task_with_a_shorter_ttl_than_the_holder_reports_the_holders_ttl_once",
    ),
    Bug(
        "the report of a longer ttl ends when the key has little time left",
        "sidecar/election/agreement.py",
        right="reply.holder != self._holder:",
        wrong="True:",
        test="tests/sidecar/election/test_agreement.py::test_a_holder_with_a_longer_ttl_is_reported_while_it_holds_the_lease",
    ),
]

IMPORTS = [
    Bug(
        "the module for one kind of Redis is imported for every kind",
        "sidecar/redis/connection.py",
        right="        if isinstance(kind, Cluster):\n            from sidecar.redis.cluster import ClusterPlace\n",
        wrong="        from sidecar.redis.cluster import ClusterPlace\n        if isinstance(kind, Cluster):\n",
        test="tests/sidecar/test_imports.py::test_no_module_of_an_unused_kind_is_imported[one server]",
    ),
]

REPLICAS = [
    Bug(
        "a call redirected by ASK is confirmed without the node's replicas",
        "sidecar/redis/store.py",
        right="confirmed = await self._confirmation(speaking)",
        wrong="confirmed = connection is not None or await self._confirmation(speaking)",
        test="tests/sidecar/redis/test_cluster_replicas.py"
        "::test_a_call_redirected_by_ask_is_confirmed_by_the_replicas_of_that_node[False]",
    ),
    Bug(
        "a redirected call is confirmed without the new node's replicas",
        "sidecar/redis/store.py",
        right="results[index] = result\n",
        wrong="results[index] = (\n"
        "                    result._replace(outcome=Outcome.RENEWED)\n"
        "                    if isinstance(result, Reply) and result.outcome is Outcome.UNCONFIRMED\n"
        "                    else result\n"
        "                )\n",
        test="tests/sidecar/redis/test_cluster_replicas.py"
        "::test_a_redirected_call_is_confirmed_by_the_replicas_of_the_new_node",
    ),
]

_SERVERLESS = "tests/sidecar/redis/test_serverless.py::test_"

SERVERLESS = [
    Bug(
        "the mode of a watch that receives only notices is logged again at each new server",
        "sidecar/redis/watch.py",
        right="if not same_server and (_INVALIDATED in channels or not connection.redirects):",
        wrong="if not same_server:",
        test=_SERVERLESS + "the_watch_receives_notices_through_any_server_and_logs_its_mode_once",
    ),
    Bug(
        "a watch on another server at the same address counts as a watch with notices",
        "sidecar/redis/watch.py",
        right="(_INVALIDATED in channels or not connection.redirects)",
        wrong="_INVALIDATED in channels",
        test=_SERVERLESS + "without_redis_cluster_a_watch_at_another_server_is_off",
    ),
    Bug(
        "the lack of WAIT is reported without the name of the setting that needs it",
        "sidecar/redis/store.py",
        right='return replace(failure, text=f"{failure.text}; MIN_REPLICAS above 0 needs WAIT")',
        wrong="return replace(failure)",
        test=_SERVERLESS + "min_replicas_is_refused_with_the_reason",
    ),
]

BUGS = [*CLUSTER, *SENTINELS, *WATCH, *SHARED, *IMPORTS, *REPLICAS, *SERVERLESS]
