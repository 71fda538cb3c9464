"""Seeded bugs in the listener of both containers and in the requests that it refuses.

Tests with real sockets find them.
"""

from tests.mutants.trial import Bug

_LISTENER = "tests/runtime/test_listener.py::test_"
_PAGES = "tests/sidecar/test_control_pages.py::test_"
_CORS = "tests/service/api/test_cors.py::test_"

BUGS = [
    Bug(
        "one peer may use every connection",
        "runtime/listener.py",
        right="return theirs < self._limits.per_peer",
        wrong="return True",
        test=_LISTENER + "a_peer_has_a_limit_of_connections_that_leaves_others_to_other_peers",
    ),
    Bug(
        "the time for a header has no limit",
        "runtime/listener.py",
        right="            self.force_close()\n",
        wrong="            pass\n",
        test=_LISTENER + "a_header_that_drips_in_is_cut_off",
    ),
    Bug(
        "each byte of a header restarts its timer",
        "runtime/listener.py",
        right="        if of_header and data and self._header_timer is None:\n",
        wrong="        if of_header and data:\n            self._stop_timer()\n",
        test=_LISTENER + "a_header_that_drips_in_is_cut_off",
    ),
    Bug(
        "a partial header after a complete header has no time limit",
        "runtime/listener.py",
        right="of_header = self._body is EMPTY_PAYLOAD and not",
        wrong="of_header = False and not",
        test=_LISTENER + "half_a_header_behind_a_whole_one_is_cut_off",
    ),
    Bug(
        "a body counts as a header",
        "runtime/listener.py",
        right="of_header, requests = self._body.is_eof(), self._request_count",
        wrong="of_header, requests = True, self._request_count",
        test=_LISTENER + "a_connection_without_a_header_under_way_outlives_the_limit_of_a_header",
    ),
    Bug(
        "a header after a held request ends the connection",
        "runtime/listener.py",
        right="if self._waiter is not None and not self._waiter.done():",
        wrong="if True:",
        test=_LISTENER + "a_request_that_is_held_is_answered_whatever_half_a_header_is_behind_it",
    ),
    Bug(
        "an unread answer keeps the connection open",
        "runtime/listener.py",
        right="if self._limits.idle < inf:",
        wrong="if self._limits.idle < 0:",
        test=_LISTENER + "a_peer_that_does_not_read_its_answer_is_cut_off",
    ),
    Bug(
        "an immediate answer overtakes the previous answer",
        "runtime/listener.py",
        right=" or waiter is None or waiter.done():",
        wrong=":",
        test=_LISTENER + "an_answer_at_once_waits_for_the_answers_before_it",
    ),
    Bug(
        "an immediate answer keeps a connection open that the client wants to close",
        "runtime/listener.py",
        right="if message.should_close or message.upgrade",
        wrong="if message.upgrade",
        test=_LISTENER + "the_application_answers_what_is_not_answered_at_once[close]",
    ),
    Bug(
        "immediate answers accumulate for a peer that does not read",
        "runtime/listener.py",
        right="transport.is_closing() or transport.get_write_buffer_size()",
        wrong="transport.is_closing()",
        test=_LISTENER + "a_peer_that_does_not_read_gets_no_answers_at_once",
    ),
    Bug(
        "a connection with immediate answers is closed as idle",
        "runtime/listener.py",
        right="        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout\n",
        wrong="",
        test=_LISTENER + "a_connection_with_answers_at_once_is_not_idle",
    ),
    Bug(
        "the timer of a header is not stopped by an immediate answer",
        "runtime/listener.py",
        right="        self._request_count += 1\n",
        wrong="",
        test=_LISTENER + "an_answer_at_once_ends_the_time_of_its_header",
    ),
    Bug(
        "the parser stops after some immediate answers",
        "runtime/listener.py",
        right="            self._parser.message_consumed()\n",
        wrong="",
        test=_LISTENER + "answers_at_once_have_no_limit_of_their_number",
    ),
    Bug(
        "a page gets an immediate answer",
        "sidecar/control.py",
        right="if refusal_of(message.method, message.headers) or not",
        wrong="if not",
        test=_PAGES + "a_page_is_refused_after_the_first_answer_too[a name that was rebound]",
    ),
    Bug(
        "an unknown expectation gets an immediate answer",
        "sidecar/control.py",
        right=' or "Expect" in message.headers:',
        wrong=":",
        test="tests/sidecar/test_control.py::test_a_question_has_the_same_answer_at_once_and_from_the_application",
    ),
    Bug(
        "a page whose name was rebound is not refused",
        "runtime/local_requests.py",
        right="        if not is_loopback(host):",
        wrong="        if False:",
        test=_PAGES + "a_page_is_refused_on_every_route[a name that was rebound]",
    ),
    Bug(
        "a page with another origin is not refused",
        "runtime/local_requests.py",
        right="        if origin.lower() not in",
        wrong="        if not origin.lower() and origin.lower() not in",
        test=_PAGES + "a_page_is_refused_on_every_route[a page]",
    ),
    Bug(
        "a link from another site is not refused",
        "runtime/local_requests.py",
        right='("same-origin", "none")',
        wrong='("same-origin", "none", "cross-site")',
        test=_PAGES + "a_page_is_refused_on_every_route[a link]",
    ),
    Bug(
        "the host in the request target is not checked",
        "runtime/local_requests.py",
        right="    if target is not None and target != hosts[0]:",
        wrong="    if False:",
        test=_PAGES + "the_host_of_a_requests_target_has_to_be_the_loopback_too",
    ),
    Bug(
        "a resign without Host is not refused",
        "runtime/local_requests.py",
        right="    if not hosts and method",
        wrong="    if False and method",
        test=_PAGES + "a_probe_may_omit_the_host_and_a_resign_may_not",
    ),
    Bug(
        "the metrics listener has no connection limit per peer",
        "sidecar/control.py",
        right="per_peer=8, ",
        wrong="",
        test="tests/sidecar/test_listener.py::test_half_headers_of_one_peer_do_not_keep_another_from_the_metrics",
    ),
    Bug(
        "an origin that contains an allowed origin may read",
        "service/api/cors.py",
        right="origin if origin in self._origins else None",
        wrong="origin if any(each in (origin or '') for each in self._origins) else None",
        test=_CORS + "another_origin_may_read_nothing",
    ),
    Bug(
        "a page cannot read error responses",
        "service/api/cors.py",
        right="        if origin is not None:\n",
        wrong="        if origin is not None and response.status < 400:\n",
        test=_CORS + "a_page_can_read_every_answer_errors_included",
    ),
    Bug(
        "a cache may give one origin's answer to another origin",
        "service/api/cors.py",
        right="response.headers[hdrs.VARY] = hdrs.ORIGIN",
        wrong="response.headers[hdrs.VARY] = hdrs.ACCEPT",
        test=_CORS + "without_an_origin_an_answer_still_varies_by_it",
    ),
    Bug(
        "all clients of a stream reconnect after the same time",
        "service/api/routes.py",
        right="self._uniform(*RETRY_DELAY)",
        wrong="max(RETRY_DELAY)",
        test=_CORS + "streams_come_back_at_different_times",
    ),
]
