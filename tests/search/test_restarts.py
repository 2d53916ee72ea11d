"""Restarts: how many side by side, how many after each other, and that the best is kept."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator

from skippipe.errors import UserError
from skippipe.search.config import SearchConfig
from skippipe.search.progress import Phase, Progress
from skippipe.search.restarts import best_of_restarts, chains_of

Anneal = Callable[[float | None, int, Generator, Phase], float]


def best(anneal: Anneal, seconds: float, progress: Progress, most_steps: int = 10, seed: int = 1) -> float:
    rng = np.random.default_rng(seed)
    return best_of_restarts(anneal, lambda found: found, 10, most_steps, seconds, 3, rng, progress, "test")


def test_chains_are_those_asked_for_or_one_a_core_or_two_where_the_result_has_to_repeat():
    config = SearchConfig()
    assert chains_of(config) == len(os.sched_getaffinity(0))
    assert chains_of(dataclasses.replace(config, time_budget_s=None)) == 2
    assert chains_of(dataclasses.replace(config, time_budget_s=None, chains=5)) == 5
    with pytest.raises(UserError, match="chains"):
        dataclasses.replace(config, chains=0)


def test_without_a_time_limit_the_generator_alone_decides():
    seen: list[tuple[int, float]] = []

    def anneal(known: float | None, number: int, rng: Generator, phase: Phase) -> float:
        assert known is None
        assert phase.left == 10
        phase.advance(10, 0.0)
        seen.append((number, rng.random()))
        return seen[-1][1]

    first = best(anneal, math.inf, Progress())
    numbers = sorted(number for number, _ in seen)
    assert numbers == [0, 1, 2]
    assert first == min(value for _, value in seen)
    assert best(anneal, math.inf, Progress()) == first != best(anneal, math.inf, Progress(), seed=2)


def test_generations_grow_and_start_from_the_best_until_the_search_is_stopped():
    progress, steps, known_before = Progress(), [], []

    def anneal(known: float | None, number: int, rng: Generator, phase: Phase) -> float:
        steps.append(phase.steps)
        known_before.append(known)
        if number >= 3:
            progress.stop()
        return (9.0, 4.0, 7.0, 5.0, 6.0, 8.0)[number]

    assert best(anneal, math.inf, progress, 10**6) == 4.0
    assert sorted(steps) == [10, 10, 10, 20, 20, 20]
    assert sorted(known_before, key=str) == [4.0, 4.0, 4.0, None, None, None]


def test_a_budget_that_is_over_still_gives_a_solution():
    assert best(lambda known, number, rng, phase: float(number), 0.0, Progress()) == 0.0


def test_all_generations_together_take_no_more_steps_than_allowed():
    steps: dict[int, int] = {}

    def anneal(known: float | None, number: int, rng: Generator, phase: Phase) -> float:
        steps[number] = phase.steps
        return 1.0

    best(anneal, math.inf, Progress(), most_steps=55)
    assert [steps[number] for number in range(0, 9, 3)] == [10, 20, 25]
    assert len(steps) == 9
