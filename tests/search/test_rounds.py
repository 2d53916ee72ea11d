"""How a round's paths become those of all microbatches."""

from __future__ import annotations

import numpy as np

from skippipe.search.rounds import every_round, iteration_s, plan_of
from tests.search.instances import random_instance


def test_rounds_repeat_origin_by_origin() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 2, 4, 0)
    shared = np.array([[0, 3, 5], [1, 4, 7], [2, 6, 8]])
    all_paths = every_round(instance, shared)
    assert all_paths[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert iteration_s(instance, shared) == plan_of(instance, all_paths, {}).expected_iteration_s
