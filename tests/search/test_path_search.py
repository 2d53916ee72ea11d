"""A* against every path there is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.search.path_search import PathSearch
from tests.search.instances import every_path, random_instance, round_trip_end


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


def test_no_path_left() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 1, 1, 0)
    blocked = np.ones(instance.nodes, dtype=np.bool_)
    assert PathSearch(instance).find(0, 0.0, blocked, ()) is None
