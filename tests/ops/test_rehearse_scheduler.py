"""The scheduler of a rehearsal: it stops a healthy task only if the desired count of healthy tasks remains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.rehearse.scheduler import MOST, Plan, Standing, plan

NEW, OLD = Standing(current=True, healthy=True), Standing(current=False, healthy=True)
STARTING = Standing(current=True, healthy=False)
OLD_STARTING = Standing(current=False, healthy=False)
FAILING = Standing(current=True, healthy=False, failing=True)

standings = st.lists(
    st.builds(Standing, current=st.booleans(), healthy=st.booleans(), failing=st.just(False), protected=st.booleans()),
    max_size=12,
)


@pytest.mark.parametrize(
    ("desired", "tasks", "expected"),
    [
        (2, [], Plan(2, ())),
        (2, [OLD, OLD], Plan(2, ())),
        (2, [OLD, OLD, STARTING, STARTING], Plan(0, ())),
        (2, [OLD, OLD, NEW, STARTING], Plan(0, (0,))),
        (2, [OLD, NEW, NEW], Plan(0, (0,))),
        (2, [NEW, NEW], Plan(0, ())),
        (1, [NEW, NEW], Plan(0, (0,))),
        (1, [STARTING, NEW, NEW], Plan(0, (0, 1))),
        (0, [NEW, STARTING, OLD], Plan(0, (2, 1, 0))),
        (2, [NEW, FAILING], Plan(1, ())),
        (2, [NEW, FAILING, NEW], Plan(0, (1,))),
        (2, [NEW, NEW, OLD_STARTING], Plan(0, (2,))),
    ],
)
def test_a_plan_starts_and_stops_the_expected_tasks(desired: int, tasks: list[Standing], expected: Plan) -> None:
    assert plan(desired, tasks) == expected


@given(st.integers(0, 5), standings)
def test_no_step_leaves_too_few_healthy_tasks_or_too_many_tasks(desired: int, tasks: list[Standing]) -> None:
    step = plan(desired, tasks)
    healthy = sum(task.healthy for task in tasks)
    stopped = sum(tasks[index].healthy for index in step.stop)
    assert healthy - stopped >= min(healthy, desired)
    assert step.start == 0 or len(tasks) + step.start <= MOST * desired
    assert len(set(step.stop)) == len(step.stop)


@given(st.integers(1, 5), standings)
def test_a_protected_task_is_spared(desired: int, tasks: list[Standing]) -> None:
    assert not any(tasks[index].protected for index in plan(desired, tasks).stop)


@given(st.integers(0, 4), st.integers(0, 4))
def test_a_deploy_ends(desired: int, old: int) -> None:
    """If started tasks become healthy and stopped tasks end, only the new version remains after some steps."""
    tasks = [OLD] * old
    for _ in range(4 * (desired + old) + 4):
        step = plan(desired, tasks)
        kept = [task for index, task in enumerate(tasks) if index not in step.stop]
        tasks = [NEW if task == STARTING else task for task in kept] + [STARTING] * step.start
    assert tasks == [NEW] * desired
