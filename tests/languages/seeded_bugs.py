"""The tests of the example clients find each bug that is seeded in a client: `make languages`."""

import pytest

from tests.mutants.example_bugs import BUGS
from tests.mutants.trial import ROOT, Bug, attempt


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_clients_tests_find_each_seeded_bug(bug: Bug) -> None:
    verdict = attempt(ROOT, [bug.test], bug)
    assert verdict.failed, verdict.output
