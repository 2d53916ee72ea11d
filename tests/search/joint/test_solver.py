"""Joint search: valid, deterministic, never worse, honest about its times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skippipe.errors import UserError
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.plan import make_plan
from skippipe.search.joint.solver import JointOptions, moved, search_joint, solve_joint
from skippipe.search.problem import Instance
from tests.search.instances import light_options


@pytest.fixture(scope="module")
def instance(schedule: Schedule) -> Instance:
    return Instance.from_schedule(schedule, "ca-partial")


def searched(instance: Instance, schedule: Schedule, **options: object) -> Plan:
    values = {"iterations": 15_000} | options
    plan = search_joint(instance, schedule.plan("ca-partial"), JointOptions(**values))  # type: ignore[arg-type]
    instance.schedule({"joint": plan}).validate()
    return plan


@pytest.mark.parametrize("sync", [False, True])
def test_beats_its_warm_start(instance, schedule, sync):
    plan, warm = searched(instance, schedule, sync=sync, iterations=125_000), schedule.plan("ca-partial")
    if sync:
        assert plan.expected_step_s < 0.97 * warm.expected_step_s
    else:
        assert plan.expected_iteration_s < 0.97 * warm.expected_iteration_s


def test_every_origin_keeps_its_microbatches(instance, schedule):
    plan = searched(instance, schedule)
    origins = [path[0] for path in plan.paths]
    assert origins == sorted(origins)
    assert {origins.count(node) for node in plan.stages[0]} == {6}
    assert [len(stage) for stage in plan.stages] == [5, 3, 3, 3, 3, 3]


def test_same_seed_and_iterations_same_plan(instance, schedule):
    first, second = (searched(instance, schedule, seed=3) for _ in range(2))
    assert first.paths == second.paths
    assert first.order == second.order
    assert first.paths != searched(instance, schedule, seed=4).paths


def test_never_worse_even_without_time(instance, schedule):
    plan = searched(instance, schedule, iterations=None, time_budget_s=0.01)
    assert plan.expected_step_s <= schedule.plan("ca-partial").expected_step_s + 1e-9


def test_starts_from_assigned_stages_too_if_those_of_the_plan_are_bad(instance, schedule):
    good = schedule.plan("ca-partial")
    nodes = [int(node) for node in np.random.default_rng(1).permutation(instance.nodes)]
    (bad,) = moved(instance, good, [[nodes.pop() for _ in stage] for stage in good.stages])
    assert bad.expected_step_s > 5 * good.expected_step_s
    options = replace(light_options(joint_steps=10), found={"ca-partial": bad})
    assert solve_joint(instance, options).expected_step_s > 1.2 * good.expected_step_s
    found = solve_joint(instance, replace(options, assigned=good.stages))
    instance.schedule({"joint": found}).validate()
    assert found.expected_step_s <= good.expected_step_s


def test_time_budget_must_be_positive(instance, schedule):
    with pytest.raises(UserError, match="time budget"):
        search_joint(instance, schedule.plan("ca-partial"), JointOptions(time_budget_s=0))


def test_robust_search_is_valid_and_may_not_be_total(instance, schedule):
    searched(instance, schedule, robust=0.1, iterations=2_000)
    with pytest.raises(UserError, match="robust"):
        searched(instance, schedule, robust=1.5)


def test_memory_of_one_still_runs(instance, schedule):
    """With room for one microbatch the warm start's order is another, and every repair must keep to it."""
    pipeline = replace(instance.pipeline, memory=1)
    plan = schedule.plan("ca-partial")
    stages = [list(stage) for stage in plan.stages]
    warm = make_plan(stages, np.array(plan.paths), schedule.costs, 1, list(plan.sync_s), {})
    tight = replace(instance, pipeline=pipeline)
    found = search_joint(tight, warm, JointOptions(iterations=10_000))
    tight.schedule({"joint": found}).validate()
    assert found.expected_step_s < warm.expected_step_s
