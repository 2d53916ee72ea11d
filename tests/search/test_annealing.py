"""Improved paths are never worse than those that they come from, in what they are improved for."""

from __future__ import annotations

import numpy as np

from skippipe.search.annealing import COLDEST, HOTTEST, improve_alone, improve_round, temperature
from skippipe.search.moves import pipeline_seconds
from skippipe.search.progress import Progress
from skippipe.search.rounds import iteration_s, start_paths
from tests.search.instances import random_instance


def test_paths_that_meet_nobody_get_faster() -> None:
    instance = random_instance((5, 3, 3, 3, 3, 3), 4, 3, 6, 2)
    rng = np.random.default_rng(0)
    paths = start_paths(instance, 1, rng)

    def slowest(paths: np.ndarray) -> float:
        return max(pipeline_seconds(path, instance.costs.arrays, 3, 6) for path in paths)

    with Progress().phase("test", 2000, 60.0) as phase:
        found = improve_alone(instance, paths, 3, 6, rng, phase)
    assert phase.left == 0
    assert slowest(found) < slowest(paths)


def test_a_round_gets_faster_on_stages_that_stay() -> None:
    instance = random_instance((5, 3, 3, 3, 3, 3), 4, 3, 6, 2)
    rng = np.random.default_rng(0)
    paths = start_paths(instance, 3, rng)
    with Progress().phase("test", 1000, 60.0) as phase:
        found, stages = improve_round(instance, paths, rng, phase)
    assert stages == instance.fixed_stages
    assert iteration_s(instance, found) < iteration_s(instance, paths)


def test_without_steps_the_paths_stay() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 2, 4, 2)
    rng = np.random.default_rng(0)
    paths = start_paths(instance, 2, rng)
    with Progress().phase("test", 0, 60.0) as phase:
        assert np.array_equal(improve_round(instance, paths, rng, phase)[0], paths)


def test_temperature_falls_from_hottest_to_coldest() -> None:
    assert np.isclose(temperature(0.0), HOTTEST)
    assert np.isclose(temperature(1.0), COLDEST)
    assert np.isclose(temperature(0.5), np.sqrt(HOTTEST * COLDEST))
