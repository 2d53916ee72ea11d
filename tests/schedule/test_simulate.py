"""The simulation against times worked out by hand, and compiled against plain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule import Costs
from skippipe.schedule.costs import activation_bytes, hop_seconds, layer_parameters, stage_sync_bytes, sync_seconds
from skippipe.schedule.simulate import (
    iteration_seconds,
    order_from_starts,
    simulate_first_come_first_served,
    simulate_order,
    step_with_sync_seconds,
)
from skippipe.search.compiled import first_come_first_served, follow_order
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


def test_costs_of_the_paper() -> None:
    assert layer_parameters(1024) == 16_779_264
    assert activation_bytes(1024, 1024, 8) == 33_554_432
    assert hop_seconds(100.0, 0.03125, 2**25) == pytest.approx(0.1 + 1.0 + 0.35)
    bandwidth = np.array([[2.0, 0.5], [0.5, 2.0]])
    assert sync_seconds([0, 1], bandwidth, stage_sync_bytes(1024, 1)) == pytest.approx(8 * 16_779_264 / 2**29)
    assert sync_seconds([0], bandwidth, 1) == 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 2))
def test_compiled_equals_plain_and_the_order_repeats_the_run(seed: int, memory: int, rounds: int) -> None:
    instance = random_instance((3, 2, 2, 2), 3, memory, memory * rounds, seed)
    paths = every_round(instance, random_paths(instance, np.random.default_rng(seed)))
    cost = instance.costs
    starts = simulate_first_come_first_served(paths, cost, memory)
    np.testing.assert_array_equal(starts, first_come_first_served(paths, cost.arrays, memory))
    if np.isnan(starts).any():
        return
    tasks, offsets = order_from_starts(paths, starts, instance.nodes)
    followed = simulate_order(paths, cost, tasks, offsets)
    np.testing.assert_allclose(followed, starts)
    np.testing.assert_array_equal(followed, follow_order(paths, cost.arrays, tasks, offsets))
