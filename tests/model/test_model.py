"""The protocol holds in the model, and the model finds each broken rule."""

import pytest

from tests.model.spin import run
from tests.model.variants import BROKEN, RIGHT, Check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # on an idle core the slowest check takes less than a tenth of this
]


@pytest.mark.parametrize("check", [check for check in RIGHT if not check.long], ids=lambda check: check.name)
def test_the_right_protocol_holds(check: Check) -> None:
    verdict = run(check)
    assert verdict.holds, "\n".join(verdict.story)
    assert verdict.states > 10_000, "the search was too small"


@pytest.mark.parametrize("check", BROKEN, ids=lambda check: check.name)
def test_each_broken_rule_is_found(check: Check) -> None:
    assert not run(check).holds
