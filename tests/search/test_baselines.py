"""What SkipPipe is compared with: a random draw that no cost has touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skippipe.search.baselines import solve_random
from skippipe.search.rounds import every_round, iteration_s, random_paths
from tests.search.instances import light_options, random_instance


def test_random_is_one_draw_and_blind_to_costs() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 2, 4, 7)
    drawn = random_paths(instance, np.random.default_rng(5))
    assert np.isfinite(iteration_s(instance, drawn))
    plan = solve_random(instance, light_options(seed=5))
    assert plan.paths_array.tolist() == every_round(instance, drawn).tolist()
    slower = replace(instance, costs=replace(instance.costs, hop_s=instance.costs.hop_s[::-1].copy()))
    assert solve_random(slower, light_options(seed=5)).paths == plan.paths
    assert solve_random(instance, light_options(seed=6)).paths != plan.paths
