"""The shortest round trips against every path there is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.search.round_trip import shortest_round_trips
from tests.search.instances import every_path, random_instance, round_trip_end


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_shortest_round_trip_is_exact(seed: int) -> None:
    instance = random_instance((3, 2, 2, 2), 3, 1, 1, seed)
    trips = shortest_round_trips(instance, instance.fixed_stages, 3)
    for origin in instance.fixed_stages[0]:
        exact = min(round_trip_end(instance, path, 0.0, []) for path in every_path(instance, origin))
        assert np.isclose(trips[origin], exact)
