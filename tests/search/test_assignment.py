"""GCMA: better scores from generation to generation, the same for a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skippipe.search.assignment import Links, assign, score
from skippipe.search.progress import Progress
from tests.search.instances import random_instance


def test_assignment_improves_its_score_and_repeats_for_a_seed() -> None:
    instance = replace(random_instance((5, 3, 3, 3, 3, 3), 4, 3, 6, 1), stages=None)
    runs = [assign(instance, 20, 60, 60.0, np.random.default_rng(3), Progress()) for _ in range(2)]
    assert runs[0] == runs[1]
    ranked, trials = runs[0]
    assert trials == 60
    links = Links((instance.costs.hop_s + instance.costs.hop_s.T) / 2, instance.pair_sync_s)

    def value(stages: tuple[tuple[int, ...], ...]) -> float:
        group = np.empty(20, dtype=np.int64)
        for stage, members in enumerate(stages):
            group[list(members)] = stage
        return score(group, 6, links)[0]

    assert tuple(len(stage) for stage in ranked[0]) == (5, 3, 3, 3, 3, 3)
    values = [value(stages) for stages in ranked]
    assert values == sorted(values)
    start = assign(instance, 20, 0, 60.0, np.random.default_rng(3), Progress()).ranked
    assert values[0] < value(start[0])
