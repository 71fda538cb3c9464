"""Seeded bugs in the example clients. `make languages` runs their tests, which need Node and Go."""

from tests.mutants.trial import Bug

_CLIENTS = "tests/languages/clients.py::test_"
_HAND_OVER = _CLIENTS + "one_task_works_and_hands_over_on_sigterm"
_LIES = _CLIENTS + "an_invalid_answer_grants_nothing_and_requests_stay_rare"
_GRANT = _CLIENTS + "a_grant_that_is_not_extended_ends_the_work_in_time"
_OUTAGE = _CLIENTS + "work_ends_before_the_deadline_while_redis_is_frozen"
_STOP = _CLIENTS + "the_stop_signal_is_seen_before_the_next_request"
_SILENT = _CLIENTS + "one_silent_answer_leaves_time_for_another_request"
_ONE_CLIENT = "tests/languages/one_client.py::test_"
_SECOND = _ONE_CLIENT + "a_second_campaign_for_a_lease_is_refused_and_the_first_one_continues"
_AGAIN = _ONE_CLIENT + "work_that_reports_the_end_of_its_term_begins_again_under_the_next_term"
_NODE, _GO = "examples/node/lease_client.mjs", "examples/go/lease/client.go"

BUGS = [
    Bug(
        "Node: the client leads after an answer that names another holder",
        _NODE,
        right=" || token <= 0 || holder !== id)",
        wrong=" || token <= 0)",
        test=_LIES + "[node]",
    ),
    Bug(
        "Node: an answer about another term extends this term",
        _NODE,
        right="if (answer.token !== term.token || answer.instance_id !== term.holder) return;",
        wrong="if (answer.token === null) return;",
        test=_LIES + "[node]",
    ),
    Bug(
        "Node: nothing limits how often the client asks",
        _NODE,
        right="await sleep(Math.max(this.#sent - now(), 0) * 1000);",
        wrong="await sleep(0);",
        test=_LIES + "[node]",
    ),
    Bug(
        "Node: a request follows the stop signal",
        _NODE,
        right="if (signal?.aborted) return null;",
        wrong="",
        test=_STOP + "[node]",
    ),
    Bug(
        "Node: the client resigns before the work has ended",
        _NODE,
        right="      await ended;\n      if (own)",
        wrong="      if (own)",
        test=_HAND_OVER + "[node-5]",
    ),
    Bug(
        "Node: the client never resigns",
        _NODE,
        right='if ((await this.#request("POST", path, LIMIT)) === null) await this.#request("POST", path, LIMIT);',
        wrong="void path;",
        test=_HAND_OVER + "[node-5]",
    ),
    Bug(
        "Node: the work is cancelled only at the deadline",
        _NODE,
        right="this.#stopAt = deadline - this.#reserve;",
        wrong="this.#stopAt = deadline;",
        test=_GRANT + "[node]",
    ),
    Bug(
        "Node: the reserve for the end of the work shrinks with each answer",
        _NODE,
        right="Math.max(this.#reserve, Math.min(this.stopBefore, quarter))",
        wrong="Math.min(this.stopBefore, quarter)",
        test=_OUTAGE + "[node]",
    ),
    Bug(
        "Node: a silent request uses up the whole grant",
        _NODE,
        right="Math.min(2 * wait, wait + LIMIT)",
        wrong="wait + 2 * LIMIT",
        test=_SILENT + "[node]",
    ),
    Bug(
        "Node: work that throws TermOver ends the campaign",
        _NODE,
        right="(error) => !stopped(error)",
        wrong="() => true",
        test=_AGAIN + "[node]",
    ),
    Bug(
        "Node: two campaigns for a lease act at the same time",
        _NODE,
        right="if (this.#running.has(name)) throw",
        wrong="if (name === undefined) throw",
        test=_SECOND + "[node]",
    ),
    Bug(
        "Node: each term leaves a listener behind",
        _NODE,
        right="{ once: true, signal: until }",
        wrong="{ once: true }",
        test=_ONE_CLIENT + "no_listener_of_the_stop_signal_is_left_behind_by_a_term",
    ),
    Bug(
        "Go: the client leads after an answer that names another holder",
        _GO,
        right=" || reply.Holder == nil || *reply.Holder != *reply.InstanceID ||",
        wrong=" || reply.Holder == nil ||",
        test=_LIES + "[go]",
    ),
    Bug(
        "Go: an answer about another term extends this term",
        _GO,
        right="reply.token != term.Token || reply.instanceID != term.Holder || !term.extend",
        wrong="reply.token == 0 || !term.extend",
        test=_LIES + "[go]",
    ),
    Bug(
        "Go: nothing limits how often the client asks",
        _GO,
        right="sleep(ctx, c.slot()-now())",
        wrong="",
        test=_LIES + "[go]",
    ),
    Bug(
        "Go: the client resigns before the work has ended",
        _GO,
        right="	<-done\n",
        wrong="",
        test=_HAND_OVER + "[go-5]",
    ),
    Bug(
        "Go: the client never resigns",
        _GO,
        right="if _, err := c.request(context.Background(), http.MethodPost, path, limit); err != nil {",
        wrong='if path == "" {',
        test=_HAND_OVER + "[go-5]",
    ),
    Bug(
        "Go: the work is cancelled only at the deadline",
        _GO,
        right="t.deadline, t.stopAt = deadline, deadline-t.reserve",
        wrong="t.deadline, t.stopAt = deadline, deadline",
        test=_GRANT + "[go]",
    ),
    Bug(
        "Go: the reserve for the end of the work shrinks with each answer",
        _GO,
        right="if before > t.reserve {",
        wrong="if before > 0 {",
        test=_OUTAGE + "[go]",
    ),
    Bug(
        "Go: a silent request uses up the whole grant",
        _GO,
        right="within = 2 * hold\n",
        wrong="within = hold + 2*limit\n",
        test=_SILENT + "[go]",
    ),
    Bug(
        "Go: work that returns ErrOver ends the campaign",
        _GO,
        right="own = own && (term.Remaining() > 0 || !errors.Is(err, ErrOver))",
        wrong="",
        test=_AGAIN + "[go]",
    ),
    Bug(
        "Go: two campaigns for a lease act at the same time",
        _GO,
        right="	if c.running[name] {\n",
        wrong='	if c.running[name] && name == "" {\n',
        test=_SECOND + "[go]",
    ),
    Bug(
        "Go: two leases use the time of the last request without a lock",
        _GO,
        right="	c.mutex.Lock()\n	defer c.mutex.Unlock()\n	c.sent += spacing",
        wrong="	c.sent += spacing",
        test=_ONE_CLIENT + "campaigns_for_many_leases_share_a_client_without_a_data_race",
    ),
]
