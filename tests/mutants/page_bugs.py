"""Seeded bugs in the operators' page and in the JSON that it shows."""

from tests.mutants.trial import Bug

_PAGE = "tests/service/api/test_operators_page.py::test_"
_REPORTS = "tests/sidecar/client/test_reports.py::test_"

BUGS = [
    Bug(
        "the answers of the internal listener have no security headers",
        "service/api/internal_routes.py",
        right="app.on_response_prepare.append(add_headers)",
        wrong="add_headers",
        test=_PAGE + "every_answer_has_the_security_headers",
    ),
    Bug(
        "the page may load scripts from anywhere",
        "service/api/operators_page.py",
        right="script-src 'self'",
        wrong="script-src *",
        test=_PAGE + "the_policy_allows_nothing_from_outside_and_nothing_inline",
    ),
    Bug(
        "a frozen database hides the leader",
        "service/api/recent.py",
        right="timeout=max(self._began + self._limit - now, 0.0)",
        wrong="timeout=1000",
        test=_PAGE + "the_status_shows_the_leader_while_the_database_does_not_answer",
    ),
    Bug(
        "nothing reports a lease that the sidecar lacks",
        "service/api/background_status.py",
        right="NO_LEASE if sidecar.trouble is None else None",
        wrong="None",
        test=_PAGE + "a_lease_that_the_sidecar_lacks_is_an_error",
    ),
    Bug(
        "the page does not warn of a task whose clock is wrong",
        "service/api/background_status.py",
        right="*problems.clock_problems(self._access.clock_difference)",
        wrong="*problems.clock_problems(None)",
        test=_PAGE + "the_status_warns_of_a_clock_that_differs_from_the_databases",
    ),
    Bug(
        "each client's request goes to the sidecar",
        "service/api/recent.py",
        right="now - self._began >= MAX_AGE",
        wrong="now >= self._began",
        test=_PAGE + "the_sidecar_is_asked_at_most_once_a_second",
    ),
    Bug(
        "the length of a holder's name in the history has no limit",
        "service/api/internal_responses.py",
        right="    holder: OutsideText\n    acquired_at",
        wrong="    holder: str\n    acquired_at",
        test=_PAGE + "texts_from_outside_are_bounded_and_printable",
    ),
    Bug(
        "the history of another lease is accepted",
        "sidecar/client/reports.py",
        right="if lease != name:",
        wrong="if lease == '':",
        test=_REPORTS + "a_history_of_another_shape_is_unknown",
    ),
    Bug(
        "an endless report is read without a limit",
        "sidecar/client/sidecar_api.py",
        right="if len(body) > longest:",
        wrong="if longest < 0:",
        test=_REPORTS + "a_report_of_endless_length_is_unknown",
    ),
]
