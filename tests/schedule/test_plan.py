"""Any plan that the search makes is valid, round-trips, and keeps to memory whatever the timing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule import Costs, Schedule
from skippipe.schedule.simulate import simulate_order, step_nodes, step_seconds
from skippipe.search.driver import search
from skippipe.search.progress import Progress
from tests.search.instances import light_config, random_instance

SHAPES = st.sampled_from([((3, 2, 2, 2), 3), ((2, 2, 2), 3), ((5, 3, 3, 3, 3, 3), 4), ((2, 1, 1), 2)])


def most_held(schedule: Schedule, setting: str, costs: Costs) -> int:
    """Most microbatches between the start of their forward and the end of their backward on one node at a time."""
    plan = schedule.settings[setting]
    paths, length = plan.paths_array, plan.path_length
    starts = simulate_order(paths, costs, *plan.order_arrays(schedule.nodes))
    assert not np.isnan(starts).any()
    ends = starts + step_seconds(paths, costs)
    nodes, most = step_nodes(paths), 0
    for node in range(schedule.nodes):
        visited = nodes[:, :length] == node
        begins, lets_go = starts[:, :length][visited], ends[:, :length:-1][visited]
        most = max([most, *(int(((begins <= now) & (lets_go > now)).sum()) for now in begins)])
    return most


@settings(max_examples=12, deadline=None)
@given(SHAPES, st.integers(1, 3), st.integers(1, 2), st.integers(0, 10**6))
def test_searched_schedules_hold_under_any_timing(
    shape: tuple[tuple[int, ...], int], memory: int, rounds: int, seed: int
) -> None:
    instance = random_instance(*shape, memory, memory * rounds, seed)
    config = light_config(path_steps=60, pipeline_steps=60, constraint_sets=3, seed=seed)
    schedule = search(instance, config, Progress())
    text = schedule.to_json()
    assert Schedule.from_json(text).to_json() == text
    rng = np.random.default_rng(seed)
    for setting, plan in schedule.settings.items():
        assert most_held(schedule, setting, schedule.costs) <= memory
        for _ in range(3):
            shaken = replace(
                schedule.costs,
                forward_s=schedule.costs.forward_s * rng.uniform(0.5, 1.5, schedule.nodes),
                hop_s=schedule.costs.hop_s * rng.uniform(0.5, 1.5, schedule.costs.hop_s.shape),
                loss_factor=0.25 * rng.uniform(0.5, 1.5),
                backward_factor=1.5 * rng.uniform(0.5, 1.5),
                task_gap_s=0.13 * rng.uniform(0.5, 1.5),
            )
            assert most_held(schedule, setting, shaken) <= memory, plan.search["solver"]
