"""A* against every path there is, and its estimates against what is left."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule.simulate import step_nodes, step_seconds
from skippipe.schedule.validation import path_problem
from skippipe.search.path_search import PathSearch, Window
from skippipe.search.problem import Instance
from skippipe.search.round_trip import shortest_round_trips
from tests.search.instances import random_instance


def round_trip_end(instance: Instance, path: tuple[int, ...], release_s: float, windows: list[Window]) -> float:
    """End of a round trip that waits out the windows: the rule of the path search, written plainly."""
    costs, array = instance.costs, np.array([path])
    places, lasts = step_nodes(array)[0], step_seconds(array, costs)[0]
    now = release_s
    for step, (node, duration) in enumerate(zip(places, lasts, strict=True)):
        if step:
            now += costs.hop_s[places[step - 1], node]
        moved = True
        while moved:
            moved = False
            for taken, begin, end in windows:
                if taken == node and now < end and begin < now + duration + costs.task_gap_s:
                    now, moved = end, True
        now += duration
    return now


def every_path(instance: Instance, origin: int) -> list[tuple[int, ...]]:
    stages = instance.fixed_stages
    walks = itertools.permutations(range(1, len(stages)), instance.pipeline.path_length - 1)
    legal = [walk for walk in walks if path_problem([0, *walk]) is None]
    return [(origin, *nodes) for walk in legal for nodes in itertools.product(*(stages[stage] for stage in walk))]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([((3, 2, 2, 2), 3), ((2, 2, 2), 3), ((5, 3, 3, 3, 3, 3), 4)]),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 12), st.floats(0.1, 4)), max_size=12),
    st.floats(0, 5),
)
def test_finds_the_fastest_round_trip(
    seed: int, shape: tuple[tuple[int, ...], int], taken: list[tuple[int, float, float]], release_s: float
) -> None:
    instance = random_instance(*shape, 2, 2, seed)
    windows = [(node, begin, begin + lasts) for node, begin, lasts in taken]
    blocked = np.zeros(instance.nodes, dtype=np.bool_)
    blocked[instance.nodes - 1] = True
    found = PathSearch(instance).find(0, release_s, blocked, windows)
    assert found is not None
    path, times = found
    end = times[-1] + instance.costs.backward_s[0]
    paths = [path for path in every_path(instance, 0) if not blocked[list(path)].any()]
    fastest = min(round_trip_end(instance, path, release_s, windows) for path in paths)
    assert np.isclose(end, fastest)
    assert np.isclose(end, round_trip_end(instance, tuple(path), release_s, windows))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_shortest_round_trip_is_exact(seed: int) -> None:
    instance = random_instance((3, 2, 2, 2), 3, 1, 1, seed)
    trips = shortest_round_trips(instance, instance.fixed_stages, 3)
    for origin in instance.fixed_stages[0]:
        exact = min(round_trip_end(instance, path, 0.0, []) for path in every_path(instance, origin))
        assert np.isclose(trips[origin], exact)


def test_no_path_left() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 1, 1, 0)
    blocked = np.ones(instance.nodes, dtype=np.bool_)
    assert PathSearch(instance).find(0, 0.0, blocked, ()) is None
