"""Seeded bugs in the listener of both containers, the refusal of web pages, CORS, and the reconnect time of streams.

Tests with real sockets find them.
"""

from tests.mutants.trial import Bug

_LISTENER = "tests/runtime/test_listener.py::test_"
_PAGES = "tests/sidecar/test_control_pages.py::test_"
_LIMITS = "tests/service/api/test_listener.py::test_"
_CORS = "tests/service/api/test_cors.py::test_"

BUGS = [
    Bug(
        "one peer may use every connection",
        "runtime/listener.py",
        right="return theirs < self._limits.per_peer",
        wrong="return True",
        test=_LISTENER + "a_connection_limit_per_peer_leaves_connections_for_other_peers",
    ),
    Bug(
        "each refused connection writes a log line",
        "runtime/listener.py",
        right="self._silent_until = now + REPORT_INTERVAL",
        wrong="self._silent_until = now",
        test=_LISTENER + "the_limit_on_connections_is_logged_once_a_minute",
    ),
    Bug(
        "streams may use the connections that health checks need",
        "service/api/listener.py",
        right="int(max_connections() * STREAMS_SHARE)",
        wrong="int(max_connections())",
        test=_LIMITS + "streams_leave_connections_for_short_requests_and_health_checks[300]",
    ),
    Bug(
        "the time for a header has no limit",
        "runtime/listener.py",
        right="            self.force_close()\n",
        wrong="            pass\n",
        test=_LISTENER + "a_slow_header_closes_the_connection",
    ),
    Bug(
        "each byte of a header restarts its timer",
        "runtime/listener.py",
        right="        if of_header and data and self._header_timer is None:\n",
        wrong="        if of_header and data:\n            self._stop_timer()\n",
        test=_LISTENER + "a_slow_header_closes_the_connection",
    ),
    Bug(
        "a partial header after a complete header has no time limit",
        "runtime/listener.py",
        right="of_header = self._body is EMPTY_PAYLOAD and not",
        wrong="of_header = False and not",
        test=_LISTENER + "an_incomplete_header_after_a_complete_request_closes_the_connection",
    ),
    Bug(
        "a body counts as a header",
        "runtime/listener.py",
        right="of_header, requests = self._body.is_eof(), self._request_count",
        wrong="of_header, requests = True, self._request_count",
        test=_LISTENER + "an_idle_connection_outlives_the_header_limit",
    ),
    Bug(
        "a header after a held request ends the connection",
        "runtime/listener.py",
        right="if self._waiter is not None and not self._waiter.done():",
        wrong="if True:",
        test=_LISTENER + "a_held_request_is_answered_even_if_an_incomplete_header_follows",
    ),
    Bug(
        "an unread answer keeps the connection open",
        "runtime/listener.py",
        right="if self._limits.idle < inf:",
        wrong="if self._limits.idle < 0:",
        test=_LISTENER + "a_peer_that_does_not_read_its_answer_is_disconnected",
    ),
    Bug(
        "an immediate answer overtakes the previous answer",
        "runtime/listener.py",
        right=" or waiter is None or waiter.done():",
        wrong=":",
        test=_LISTENER + "a_fast_path_answer_waits_for_earlier_answers",
    ),
    Bug(
        "an immediate answer keeps open a connection that the client wants to close",
        "runtime/listener.py",
        right="if message.should_close or message.upgrade",
        wrong="if message.upgrade",
        test=_LISTENER + "the_application_answers_requests_that_the_fast_path_leaves[close]",
    ),
    Bug(
        "immediate answers accumulate for a peer that does not read",
        "runtime/listener.py",
        right="transport.is_closing() or transport.get_write_buffer_size()",
        wrong="transport.is_closing()",
        test=_LISTENER + "a_peer_that_does_not_read_gets_no_fast_path_answers",
    ),
    Bug(
        "a connection with immediate answers is closed as idle",
        "runtime/listener.py",
        right="        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout\n",
        wrong="",
        test=_LISTENER + "a_connection_with_fast_path_answers_is_not_idle",
    ),
    Bug(
        "the timer of a header is not stopped by an immediate answer",
        "runtime/listener.py",
        right="        self._request_count += 1\n",
        wrong="",
        test=_LISTENER + "a_fast_path_answer_stops_the_header_timer",
    ),
    Bug(
        "the parser stops after some immediate answers",
        "runtime/listener.py",
        right="            self._parser.message_consumed()\n",
        wrong="",
        test=_LISTENER + "the_number_of_fast_path_answers_is_not_limited",
    ),
    Bug(
        "a web page gets an immediate answer instead of a refusal",
        "sidecar/control.py",
        right="if refusal_of(message.method, message.headers) or not",
        wrong="if not",
        test=_PAGES + "a_web_page_is_refused_on_the_fast_path[a rebound name]",
    ),
    Bug(
        "an unknown expectation gets an immediate answer",
        "sidecar/control.py",
        right=' or "Expect" in message.headers:',
        wrong=":",
        test="tests/sidecar/test_control.py::test_the_fast_path_and_the_application_give_the_same_answer",
    ),
    Bug(
        "a page whose name was rebound is not refused",
        "runtime/local_requests.py",
        right="        if not is_loopback(host):",
        wrong="        if False:",
        test=_PAGES + "a_web_page_is_refused_on_every_route[a rebound name]",
    ),
    Bug(
        "a page with another origin is not refused",
        "runtime/local_requests.py",
        right="        if origin.lower() not in",
        wrong="        if not origin.lower() and origin.lower() not in",
        test=_PAGES + "a_web_page_is_refused_on_every_route[a page]",
    ),
    Bug(
        "a link from another site is not refused",
        "runtime/local_requests.py",
        right='("same-origin", "none")',
        wrong='("same-origin", "none", "cross-site")',
        test=_PAGES + "a_web_page_is_refused_on_every_route[a link]",
    ),
    Bug(
        "the host in the request target is not checked",
        "runtime/local_requests.py",
        right="    if target is not None and target != hosts[0]:",
        wrong="    if False:",
        test=_PAGES + "a_request_target_with_a_host_that_is_not_loopback_is_refused",
    ),
    Bug(
        "a resign without Host is not refused",
        "runtime/local_requests.py",
        right="    if not hosts and method",
        wrong="    if False and method",
        test=_PAGES + "a_probe_may_omit_the_host_header_but_a_resign_may_not",
    ),
    Bug(
        "the metrics listener has no connection limit per peer",
        "sidecar/control.py",
        right="per_peer=8, ",
        wrong="",
        test="tests/sidecar/test_listener.py::test_incomplete_headers_of_one_peer_do_not_block_metrics_for_another_peer",
    ),
    Bug(
        "an origin that contains an allowed origin may read",
        "service/api/cors.py",
        right="origin if origin in self._origins else None",
        wrong="origin if any(each in (origin or '') for each in self._origins) else None",
        test=_CORS + "a_page_of_another_origin_can_read_nothing",
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
        test=_CORS + "the_answer_to_a_request_without_an_origin_has_vary_origin",
    ),
    Bug(
        "all clients of a stream reconnect after the same time",
        "service/api/routes.py",
        right="self._uniform(*RETRY_DELAY)",
        wrong="max(RETRY_DELAY)",
        test=_CORS + "the_retry_delays_of_streams_differ",
    ),
    Bug(
        "a client that leaves before 100 Continue causes a traceback in the log",
        "runtime/logs.py",
        right="HttpProcessingError, RequestPayloadError, ClientConnectionResetError\n",
        wrong="HttpProcessingError, RequestPayloadError\n",
        test="tests/sidecar/test_control.py::test_clients_that_do_not_await_the_continue_write_no_log_line",
    ),
]
