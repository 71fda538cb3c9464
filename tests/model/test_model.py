"""The protocol holds in the model, and the model finds each broken rule."""

import pytest

from tests.model.spin import run
from tests.model.variants import BROKEN, RIGHT, Check

pytestmark = pytest.mark.timeout(600)  # on an idle core the slowest check takes a tenth of this

MANY_STATES = ("step_down_not_extended",)
"""Broken rules whose violation takes seconds to find. `make test` has test_scripts_step_down.py for the same rule."""


@pytest.mark.slow
@pytest.mark.parametrize("check", [check for check in RIGHT if not check.long], ids=lambda check: check.name)
def test_the_right_protocol_holds(check: Check) -> None:
    verdict = run(check)
    assert verdict.holds, "\n".join(verdict.story)
    assert verdict.states > 10_000, "the search was too small"


@pytest.mark.parametrize(
    "check",
    [pytest.param(each, marks=[pytest.mark.slow] if each.name in MANY_STATES else []) for each in BROKEN],
    ids=lambda check: check.name,
)
@pytest.mark.slow
def test_each_broken_rule_is_found(check: Check) -> None:
    assert not run(check).holds
