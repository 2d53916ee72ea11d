"""The simulation against times worked out by hand, and compiled against plain."""

from __future__ import annotations

from typing import get_args

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule import Costs
from skippipe.schedule.costs import Queueing
from skippipe.schedule.simulate import (
    iteration_seconds,
    order_from_starts,
    simulate_first_come_first_served,
    simulate_order,
    split_task,
    step_arrivals,
    step_nodes,
    step_seconds,
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


def test_a_message_waits_for_those_before_it_on_its_link_by_hand() -> None:
    """Two microbatches whose activations take 2 s over a link that they keep for 2 s each, forwards 1 s apart."""
    paths = np.array([[0, 1], [0, 1]])
    free = costs(ONE_WAY, gap_s=0.0)
    busy = free.with_queueing("link", ONE_WAY)
    assert simulate_first_come_first_served(paths, free, 2)[:, 1].tolist() == [3.0, 4.0]
    starts = simulate_first_come_first_served(paths, busy, 2)
    assert starts[:, 1].tolist() == [3.0, 5.0]
    assert step_arrivals(paths, busy, starts)[:, 0].tolist() == [3.0, 5.0]


def test_messages_to_other_nodes_wait_for_a_shared_uplink_alone_by_hand() -> None:
    """The uplink is as fast as the fastest link: it is kept for 0.5 s, also by the message that takes 2 s."""
    paths = np.array([[0, 1], [0, 2]])
    hop_s = np.array([[0.0, 2.0, 0.5], [2.0, 0.0, 2.0], [0.5, 2.0, 0.0]])
    free = Costs(np.array([0.1, 1.0, 1.0]), 0.25, 1.5, 0.0, hop_s)
    assert simulate_first_come_first_served(paths, free, 2)[:, 1].tolist() == [2.1, 0.7]
    assert simulate_first_come_first_served(paths, free.with_queueing("link", hop_s), 2)[:, 1].tolist() == [2.1, 0.7]
    uplink = free.with_queueing("uplink", hop_s)
    np.testing.assert_allclose(simulate_first_come_first_served(paths, uplink, 2)[:, 1], [2.1, 1.1])


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.data())
def test_a_tasks_number_is_read_back(microbatch: int, length: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, 2 * length))
    task = task_number(microbatch, step, length)
    assert split_task(task, length) == (microbatch, step)
    assert compiled.task_number(microbatch, step, length) == task
    assert compiled.split_task(task, length) == (microbatch, step)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 2), st.sampled_from(get_args(Queueing)))
def test_compiled_equals_plain_and_the_order_repeats_the_run(
    seed: int, memory: int, rounds: int, queueing: Queueing
) -> None:
    instance = random_instance((3, 2, 2, 2), 3, memory, memory * rounds, seed)
    paths = every_round(instance, random_paths(instance, np.random.default_rng(seed)))
    cost = instance.costs.with_queueing(queueing, instance.costs.hop_s)
    starts = simulate_first_come_first_served(paths, cost, memory)
    np.testing.assert_array_equal(starts, compiled.first_come_first_served(paths, cost.arrays, memory))
    if np.isnan(starts).any():
        return
    tasks, offsets = order_from_starts(paths, starts, instance.nodes)
    followed = simulate_order(paths, cost, tasks, offsets)
    np.testing.assert_allclose(followed, starts)
    np.testing.assert_array_equal(followed, compiled.follow_order(paths, cost.arrays, tasks, offsets))
    # Whatever waits on the way, a step starts when its message is there and its node is free.
    arrivals, ends = step_arrivals(paths, cost, followed), followed + step_seconds(paths, cost)
    assert (arrivals <= followed[:, 1:] + 1e-9).all()
    alone = ends[:, :-1] + cost.hop_s[step_nodes(paths)[:, :-1], step_nodes(paths)[:, 1:]]
    if queueing == "none":
        np.testing.assert_array_equal(arrivals, alone)
    else:
        assert (arrivals >= alone - 1e-9).all()
