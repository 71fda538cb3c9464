"""The protocol holds in the model, and the model notices each broken rule."""

import pytest

from tests.model.spin import run
from tests.model.variants import BROKEN, RIGHT, Check

pytestmark = pytest.mark.timeout(600)  # alone on a core the slowest takes a tenth of it


@pytest.mark.slow
@pytest.mark.parametrize("check", [check for check in RIGHT if not check.long], ids=lambda check: check.name)
def test_the_right_protocol_holds(check: Check) -> None:
    verdict = run(check)
    assert verdict.holds, "\n".join(verdict.story)
    assert verdict.states > 10_000, "there was hardly anything to search"


@pytest.mark.parametrize("check", BROKEN, ids=lambda check: check.name)
def test_each_broken_rule_is_found(check: Check) -> None:
    assert not run(check).holds
