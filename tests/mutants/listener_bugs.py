"""Seeded bugs in the listener of both containers and in what it refuses. Tests with real sockets find them."""

from tests.mutants.trial import Bug

_LISTENER = "tests/runtime/test_listener.py::test_"
_PAGES = "tests/sidecar/test_control_pages.py::test_"
_CORS = "tests/service/api/test_cors.py::test_"

BUGS = [
    Bug(
        "one peer may take every connection",
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
        "half a header after a whole one has no time limit",
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
        "an unread answer keeps its connection open",
        "runtime/listener.py",
        right="if self._limits.idle < inf:",
        wrong="if self._limits.idle < 0:",
        test=_LISTENER + "a_peer_that_does_not_read_its_answer_is_cut_off",
    ),
    Bug(
        "a page whose name was rebound is not refused",
        "runtime/local_requests.py",
        right="        if not is_loopback(host):",
        wrong="        if False:",
        test=_PAGES + "a_page_is_refused_on_every_route[a name that was rebound]",
    ),
    Bug(
        "a page of another origin is not refused",
        "runtime/local_requests.py",
        right="        if origin.lower() not in",
        wrong="        if not origin.lower() and origin.lower() not in",
        test=_PAGES + "a_page_is_refused_on_every_route[a page]",
    ),
    Bug(
        "a link of another site is not refused",
        "runtime/local_requests.py",
        right='("same-origin", "none")',
        wrong='("same-origin", "none", "cross-site")',
        test=_PAGES + "a_page_is_refused_on_every_route[a link]",
    ),
    Bug(
        "the host in a request's target is not checked",
        "runtime/local_requests.py",
        right="    if hosts and request.host != hosts[0]:",
        wrong="    if False:",
        test=_PAGES + "the_host_of_a_requests_target_has_to_be_the_loopback_too",
    ),
    Bug(
        "a resign without Host is not refused",
        "runtime/local_requests.py",
        right="    if not hosts and request.method",
        wrong="    if False and request.method",
        test=_PAGES + "a_probe_may_omit_the_host_and_a_resign_may_not",
    ),
    Bug(
        "the metrics listener has no limit for a peer",
        "sidecar/control.py",
        right="per_peer=8, ",
        wrong="",
        test="tests/sidecar/test_listener.py::test_half_headers_of_one_peer_do_not_keep_another_from_the_metrics",
    ),
    Bug(
        "an origin that contains an allowed one may read",
        "service/api/cors.py",
        right="origin if origin in self._origins else None",
        wrong="origin if any(each in (origin or '') for each in self._origins) else None",
        test=_CORS + "another_origin_may_read_nothing",
    ),
    Bug(
        "a page cannot read errors",
        "service/api/cors.py",
        right="        if origin is not None:\n",
        wrong="        if origin is not None and response.status < 400:\n",
        test=_CORS + "a_page_can_read_every_answer_errors_included",
    ),
    Bug(
        "a cache may give one origin's answer to another",
        "service/api/cors.py",
        right="response.headers[hdrs.VARY] = hdrs.ORIGIN",
        wrong="response.headers[hdrs.VARY] = hdrs.ACCEPT",
        test=_CORS + "without_an_origin_an_answer_still_varies_by_it",
    ),
    Bug(
        "every client of a stream comes back after the same time",
        "service/api/routes.py",
        right="self._uniform(*RETRY_DELAY)",
        wrong="max(RETRY_DELAY)",
        test=_CORS + "streams_come_back_at_different_times",
    ),
]
