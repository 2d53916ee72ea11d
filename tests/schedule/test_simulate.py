"""The simulation against times worked out by hand, and compiled against plain."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule import Costs
from skippipe.schedule.simulate import (
    iteration_seconds,
    order_from_starts,
    simulate_first_come_first_served,
    simulate_order,
    split_task,
    step_with_sync_seconds,
    task_number,
)
from skippipe.search import compiled
from skippipe.search.rounds import every_round, random_paths
from tests.search.instances import random_instance

ONE_WAY = np.array([[0.0, 2.0], [3.0, 0.0]])


def costs(hop_s: np.ndarray, gap_s: float = 0.5) -> Costs:
    return Costs(np.ones(len(hop_s)), 0.25, 1.5, gap_s, hop_s)


def test_one_microbatch_by_hand() -> None:
    paths = np.array([[0, 1]])
    starts = simulate_first_come_first_served(paths, costs(ONE_WAY), 1)
    assert starts.tolist() == [[0.0, 3.0, 7.0, 9.25, 13.75]]
    assert iteration_seconds(paths, costs(ONE_WAY), starts) == 15.25
    assert step_with_sync_seconds(paths, costs(ONE_WAY), starts, [[0], [1]], [1.0, 9.0]) == 10.75 + 9.0


def test_gap_and_memory_by_hand() -> None:
    paths = np.array([[0, 1], [0, 1]])
    together = simulate_first_come_first_served(paths, costs(ONE_WAY), 2)
    assert together[1, :2].tolist() == [1.5, 4.5]
    apart = simulate_first_come_first_served(paths, costs(ONE_WAY), 1)
    assert apart[1, 0] == 15.25 + 0.5


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.data())
def test_a_tasks_number_is_read_back(microbatch: int, length: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, 2 * length))
    task = task_number(microbatch, step, length)
    assert split_task(task, length) == (microbatch, step)
    assert compiled.task_number(microbatch, step, length) == task
    assert compiled.split_task(task, length) == (microbatch, step)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 2))
def test_compiled_equals_plain_and_the_order_repeats_the_run(seed: int, memory: int, rounds: int) -> None:
    instance = random_instance((3, 2, 2, 2), 3, memory, memory * rounds, seed)
    paths = every_round(instance, random_paths(instance, np.random.default_rng(seed)))
    cost = instance.costs
    starts = simulate_first_come_first_served(paths, cost, memory)
    np.testing.assert_array_equal(starts, compiled.first_come_first_served(paths, cost.arrays, memory))
    if np.isnan(starts).any():
        return
    tasks, offsets = order_from_starts(paths, starts, instance.nodes)
    followed = simulate_order(paths, cost, tasks, offsets)
    np.testing.assert_allclose(followed, starts)
    np.testing.assert_array_equal(followed, compiled.follow_order(paths, cost.arrays, tasks, offsets))
