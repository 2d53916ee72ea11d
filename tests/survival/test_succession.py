"""After any loss that leaves every stage a replica the living have a plan that ends, with all the same microbatches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.errors import UserError
from skippipe.schedule import Costs, Plan, Schedule
from skippipe.schedule.plan import Kind, Task
from skippipe.schedule.simulate import simulate_first_come_first_served, step_nodes
from skippipe.schedule.validation import check_memory, tasks_of_nodes
from skippipe.survival.succession import (
    StageLostError,
    check_living,
    heirs,
    order_of_the_living,
    plan_of_the_living,
    plan_of_what_follows,
    sources,
)
from tests.small_schedule import small_schedule
from tests.survival.instances import SHIPPED, random_losses, random_schedule
from tests.survival.takeover import Death, State, run_to_end, takeover_step_seconds

SEEDS = st.integers(0, 10**6)


def survived(schedule: Schedule, plan: Plan, lost: frozenset[int]) -> Plan:
    return plan_of_the_living(plan, lost, schedule.costs, schedule.bandwidth_gib_s, schedule.pipeline.sync_bytes)


def hold(schedule: Schedule, before: Plan, lost: frozenset[int], after: Plan) -> None:
    """What must be true of every plan after a loss."""
    check_living(after, schedule.nodes)
    assert after.order.keys() == after.stage_of().keys() == before.stage_of().keys() - lost
    assert len(after.paths) == len(before.paths)
    stage_of = before.stage_of()
    for old, new in zip(before.paths, after.paths, strict=True):
        assert [stage_of[node] for node in old] == [stage_of[node] for node in new]
        assert all(node == heir for node, heir in zip(old, new, strict=True) if node not in lost)
    wanted = tasks_of_nodes(after, schedule.nodes)
    assert all(len(tasks) == len(wanted[node]) and set(tasks) == wanted[node] for node, tasks in after.order.items())
    assert not np.isnan(after.starts(schedule.costs)).any()
    assert 0 < after.expected_iteration_s <= after.expected_step_s


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_the_living_do_everything_whoever_is_lost(seed: int) -> None:
    schedule, rng = random_schedule(seed), np.random.default_rng(seed)
    plan, memory = schedule.plan("any"), schedule.pipeline.memory
    while lost := random_losses(plan, rng):
        after = survived(schedule, plan, lost)
        hold(schedule, plan, lost, after)
        assert survived(schedule, plan, lost) == after
        following = plan_of_what_follows(after, schedule.costs, memory)
        hold(schedule, plan, lost, following)
        assert following.paths == after.paths
        # Losses go on, in the middle of an iteration or after it.
        plan = after if rng.integers(2) else following


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_plans_survive_any_node(path: object) -> None:
    schedule = Schedule.load(str(path))
    memory = schedule.pipeline.memory
    for plan in schedule.settings.values():
        for node in range(schedule.nodes):
            after = survived(schedule, plan, frozenset({node}))
            hold(schedule, plan, frozenset({node}), after)
            following = plan_of_what_follows(after, schedule.costs, memory)
            check_memory(following, "following", memory)
            # Nothing crosses the link that takes 132 s.
            assert max(after.expected_step_s, following.expected_step_s) < 2 * plan.expected_step_s


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.floats(0, 1.1), st.floats(0, 6))
def test_a_takeover_ends_whatever_is_done(seed: int, moment: float, unnoticed_s: float) -> None:
    schedule, rng = random_schedule(seed), np.random.default_rng(seed)
    plan = schedule.plan("any")
    if lost := random_losses(plan, rng):
        death = Death(lost, moment * plan.expected_iteration_s, unnoticed_s)
        after = survived(schedule, plan, lost)
        step_s = takeover_step_seconds(plan, after, schedule.costs, death)
        assert np.isfinite(step_s)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_whatever_is_done_the_rest_ends_after_several_losses_too(seed: int) -> None:
    schedule, rng = random_schedule(seed), np.random.default_rng(seed)
    before = plan = schedule.plan("any")
    while lost := random_losses(plan, rng):
        before, plan = plan, survived(schedule, plan, lost)
        nodes, share = step_nodes(before.paths_array), rng.uniform()
        done = {place: 1.0 for place, node in np.ndenumerate(nodes) if node not in lost and rng.uniform() < share}
        arrived = {place: at_s for place, at_s in done.items() if place[1] + 1 < nodes.shape[1]}
        assert len(run_to_end(before, plan, schedule.costs, State(done, arrived), 2.0)) == nodes.size


def test_deaths_end_the_shipped_iterations_too() -> None:
    schedule = Schedule.load("original-20-nodes-and-joint")
    rng = np.random.default_rng(0)
    for plan in schedule.settings.values():
        for _ in range(10):
            lost = random_losses(plan, rng)
            death = Death(lost, rng.uniform(0, plan.expected_iteration_s), 1.0)
            assert np.isfinite(takeover_step_seconds(plan, survived(schedule, plan, lost), schedule.costs, death))


def test_the_nearest_living_replica_inherits_until_it_is_given_more_than_its_share() -> None:
    schedule = small_schedule()
    hop_s = np.ones((6, 6))
    hop_s[2, 4] = hop_s[4, 2] = 0.1
    costs = Costs(np.full(6, 0.01), 0.25, 1.5, 0.0, hop_s)
    plan = replace(schedule.plan("baseline"), stages=((0, 1), (2, 3), (4, 5)), paths=((0, 2, 5),) * 8)
    assert {path[2] for path in heirs(plan, {5}, costs)} == {4}
    # By another replica the hops take 1.8 s longer: worth it if each microbatch takes 2.5 s of its heir's time.
    level = Costs(np.ones(7), 0.25, 1.5, 0.0, np.pad(hop_s, (0, 1), constant_values=1.0))
    three = replace(plan, stages=((0, 1), (2, 3), (4, 5, 6)), paths=((0, 2, 5),) * 8)
    given = [path[2] for path in heirs(three, {5}, level)]
    assert given == [4, 6, 4, 6, 4, 6, 4, 6]


def test_heirs_of_neighbours_are_chosen_together() -> None:
    hop_s = np.full((7, 7), 1.0)
    hop_s[0, 3] = hop_s[3, 0] = 0.5
    # Node 3 is nearer to the origin than node 2, but node 2 and its neighbour 5 stand side by side.
    hop_s[2, 5] = hop_s[5, 2] = 0.1
    costs = Costs(np.full(7, 0.01), 0.25, 1.5, 0.0, hop_s)
    plan = replace(small_schedule().plan("baseline"), stages=((0,), (1, 2, 3), (4, 5, 6)), paths=((0, 1, 4),))
    assert heirs(plan, {1, 4}, costs) == ((0, 2, 5),)


def test_equal_times_are_one_order_all_the_same() -> None:
    # Hops and tasks that vanish beside the time that has passed give equal starts.
    schedule = random_schedule(3)
    plan, nothing = schedule.plan("any"), np.zeros((schedule.nodes, schedule.nodes))
    costs = replace(schedule.costs, forward_s=np.full(schedule.nodes, 1e-300), hop_s=nothing, task_gap_s=0.0)
    lost = random_losses(plan, np.random.default_rng(0))
    stages = tuple(tuple(node for node in stage if node not in lost) for stage in plan.stages)
    paths = heirs(plan, lost, costs)
    after = replace(plan, stages=stages, paths=paths, order=order_of_the_living(plan, stages, paths, costs))
    check_living(after, schedule.nodes)


def test_a_stage_without_a_living_replica_is_named() -> None:
    schedule = small_schedule()
    with pytest.raises(StageLostError, match="stage 1, 2") as caught:
        survived(schedule, schedule.plan("baseline"), frozenset({2, 3, 4, 5}))
    assert caught.value.stages == (1, 2)


def test_batches_are_those_of_the_first_plan() -> None:
    for schedule in [small_schedule(), *(Schedule.load(path) for path in SHIPPED)]:
        for plan in schedule.settings.values():
            found = sources(plan)
            expected = [(plan.stages[0].index(path[0]), plan.own_number(m)) for m, path in enumerate(plan.paths)]
            assert found == expected


def test_the_faster_order_follows_unless_it_takes_more_memory() -> None:
    schedule = Schedule.load("original-20-nodes-and-joint")
    plan, memory = schedule.plan("joint"), schedule.pipeline.memory
    after = survived(schedule, plan, frozenset({11}))
    assert plan_of_what_follows(after, schedule.costs, memory) == after
    slower = survived(schedule, schedule.plan("ca-partial"), frozenset({11}))
    served = plan_of_what_follows(slower, schedule.costs, memory)
    assert served.expected_step_s > slower.expected_step_s
    with pytest.raises(UserError, match="memory is 3"):
        check_memory(slower, "takeover", memory)
    roomy = plan_of_what_follows(slower, schedule.costs, 30)
    assert roomy.expected_step_s <= slower.expected_step_s


def test_an_order_that_gets_stuck_if_served_first_come_is_not_taken() -> None:
    hop_s = np.ones((4, 4))
    costs = Costs(np.ones(4), 0.25, 1.5, 0.0, hop_s)
    paths = ((0, 2, 3), (1, 3, 2))
    tasks = {
        0: ("F0", "L0", "B0"),
        1: ("F1", "L1", "B1"),
        2: ("F0", "B0", "F1", "B1"),
        3: ("F0", "B0", "F1", "B1"),
    }
    order = {node: tuple(Task.parse(task, "test") for task in row) for node, row in tasks.items()}
    stuck = Plan(((0, 1), (2,), (3,)), paths, order, (0.0,) * 3, 1.0, 1.0)
    check_living(stuck, 4)
    assert np.isnan(simulate_first_come_first_served(stuck.paths_array, costs, 1)).any()
    assert plan_of_what_follows(stuck, costs, 1) == stuck


BROKEN = {
    "node of nobody": (lambda plan: replace(plan, stages=((0, 99), *plan.stages[1:])), "names node 99"),
    "node twice": (lambda plan: replace(plan, stages=((0, 2), *plan.stages[1:])), "node 2 is in stages 0 and 1"),
    "no microbatch": (lambda plan: replace(plan, paths=()), "microbatches is empty"),
    "visit of the lost": (lambda plan: replace(plan, paths=((1, 2, 4), *plan.paths[1:])), "node 1, which is in no"),
    "stage twice": (lambda plan: replace(plan, paths=((0, 2, 3), *plan.paths[1:])), "stage 1 twice"),
    "paths of two lengths": (lambda plan: replace(plan, paths=(*plan.paths[:-1], (0, 2))), "visits 2 nodes"),
    "order of the lost": (lambda plan: replace(plan, order=plan.order | {1: ()}), "node 1, which is in no stage"),
    "no order": (lambda plan: replace(plan, order={n: o for n, o in plan.order.items() if n}), "misses task"),
    "task twice": (lambda plan: replace(plan, order=plan.order | {0: plan.order[0] * 2}), "repeats task"),
    "foreign task": (
        lambda plan: replace(plan, order=plan.order | {0: (*plan.order[0], Task(Kind.FORWARD, 77))}),
        "F77",
    ),
    "circle": (lambda plan: replace(plan, order=plan.order | {0: plan.order[0][::-1]}), "waits for ever"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_plans_that_the_living_can_not_run_are_refused(case: str) -> None:
    schedule = small_schedule()
    after = survived(schedule, schedule.plan("baseline"), frozenset({1}))
    check_living(after, schedule.nodes)
    change, message = BROKEN[case]
    with pytest.raises(UserError, match=message):
        check_living(change(after), schedule.nodes)


def test_a_stage_that_nobody_holds_is_no_mistake_if_no_path_visits_it() -> None:
    schedule = small_schedule()
    plan = schedule.plan("ca-partial")
    paths = tuple((origin, 2) for origin, _ in plan.paths)
    stages = ((0, 1), (2, 3), ())
    order = order_of_the_living(plan, stages, paths, schedule.costs)
    check_living(replace(plan, stages=stages, paths=paths, order=order), schedule.nodes)
