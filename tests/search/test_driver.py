"""Whole searches: valid, seeded, in the paper's order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from skippipe.schedule import Schedule
from skippipe.search.assignment import assign
from skippipe.search.driver import SOLVERS, search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress
from tests.search.instances import light_config


@pytest.fixture(scope="module")
def light_schedule() -> Schedule:
    config = light_config()
    return search(Instance.from_config(config), config, Progress())


def test_a_search_gives_valid_plans_in_the_papers_order(light_schedule: Schedule) -> None:
    times = [light_schedule.settings[name].expected_iteration_s for name in SOLVERS if name != "joint"]
    assert times[0] > times[1] > times[2] >= times[3]
    for plan in light_schedule.settings.values():
        assert 0 < plan.search["lower_bound_s"] <= plan.expected_iteration_s
        assert plan.search["lower_bound_step_s"] <= plan.expected_step_s
    assert Schedule.from_json(light_schedule.to_json()).to_json() == light_schedule.to_json()


def test_the_same_seed_gives_the_same_plans(light_schedule: Schedule) -> None:
    config = light_config()
    again = search(Instance.from_config(config), config, Progress())
    for name in ("baseline", "random", "non-ca-partial", "ca-partial"):
        assert again.settings[name].paths == light_schedule.settings[name].paths


def test_baselines_stand_on_the_stages_that_the_genetic_algorithm_scores_best(light_schedule: Schedule) -> None:
    config = light_config()
    instance, rng = Instance.from_config(config), np.random.default_rng(config.seed)
    best = assign(instance, config.population, config.trials, math.inf, rng, Progress()).ranked[0]
    plans = light_schedule.settings
    assert plans["baseline"].stages == plans["random"].stages == best
    assert plans["ca-partial"].stages == plans["non-ca-partial"].stages != best
    assert plans["baseline"].search["stages"] == "GCMA"
    assert plans["ca-partial"].search["stages"] == "annealed on the simulation"
    for plan in plans.values():
        assert (plan.search["trials"], plan.search["trials_asked"]) == (config.trials, config.trials)


def test_stages_of_our_own_keep_within_the_sync_that_is_allowed() -> None:
    config = light_config(settings=["baseline", "ca-partial"], sync_slack=1.0)
    plans = search(Instance.from_config(config), config, Progress()).settings
    assert plans["ca-partial"].stages != plans["baseline"].stages
    assert max(plans["ca-partial"].sync_s) <= max(plans["baseline"].sync_s)


def test_the_papers_method_is_conflict_based_search_alone_on_the_same_stages(light_schedule: Schedule) -> None:
    config = light_config(method="paper", settings=["baseline", "random", "non-ca-partial", "ca-partial"])
    schedule = search(Instance.from_config(config), config, Progress())
    plans = schedule.settings
    assert len({plan.stages for plan in plans.values()}) == 1
    assert plans["baseline"].paths == light_schedule.plan("baseline").paths
    assert plans["random"].paths == light_schedule.plan("random").paths
    assert plans["ca-partial"].search["solver"] == "conflict-based search under TC1 and TC2"
    assert plans["ca-partial"].expected_iteration_s > light_schedule.plan("ca-partial").expected_iteration_s
    again = search(Instance.from_config(config), config, Progress())
    assert {name: plan.paths for name, plan in again.settings.items()} == {name: p.paths for name, p in plans.items()}


def test_stopped_search_still_gives_every_setting() -> None:
    config = light_config()
    progress = Progress()
    progress.stop()
    schedule = search(Instance.from_config(config), config, progress)
    schedule.validate()
    assert list(schedule.settings) == list(SOLVERS)
    assert {plan.search["trials"] for plan in schedule.settings.values()} == {0}
