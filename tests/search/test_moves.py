"""Moves of paths: nothing breaks a rule, and the annealing's books are right."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule.validation import path_problem
from skippipe.search.constraints import stage_table
from skippipe.search.moves import RoundProblem, RoundSolution, anneal_round, pipeline_seconds, propose
from skippipe.search.rounds import every_round, iteration_s, random_paths, start_paths
from tests.search.instances import random_instance


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_proposed_paths_are_legal_and_visit_the_same_nodes(seed: int) -> None:
    instance = random_instance((5, 3, 3, 3, 3, 3), 4, 1, 1, seed)
    rng = np.random.default_rng(seed)
    stage_of = stage_table(instance.fixed_stages)
    first, second = random_paths(instance, rng)[:2]
    visits = np.bincount(np.concatenate([first, second]), minlength=instance.nodes)
    if propose(first, second, stage_of, rng):
        for path in (first, second):
            assert path_problem(stage_of[path].tolist()) is None
        assert np.array_equal(np.bincount(np.concatenate([first, second]), minlength=instance.nodes), visits)


def test_a_pipeline_alone_takes_what_the_simulation_of_all_nodes_says() -> None:
    instance = random_instance((2, 1, 1), 2, 2, 6, 3)
    paths = start_paths(instance, 1, np.random.default_rng(0))
    alone = [pipeline_seconds(path, instance.costs.arrays, 2, 6) for path in paths]
    assert max(alone) == iteration_s(instance, paths)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_annealing_keeps_its_times_its_stages_and_the_limit_on_the_sync(seed: int) -> None:
    instance = random_instance((3, 2, 2, 2), 3, 2, 4, seed)
    rng = np.random.default_rng(seed)
    paths, stage_of = start_paths(instance, 2, rng), stage_table(instance.fixed_stages)
    seconds = iteration_s(instance, paths)
    limit_s = 1.2 * max(instance.sync_s(instance.fixed_stages))
    problem = RoundProblem(instance.costs.arrays, 2, 2, 0.5, instance.pair_sync_s, limit_s)
    current, best = (RoundSolution(paths.copy(), stage_of.copy(), np.array([seconds])) for _ in range(2))
    anneal_round(problem, current, best, 0.2, 300, rng)
    assert best.seconds[0] <= min(seconds, current.seconds[0])
    for found in (current, best):
        stages = tuple(tuple(np.flatnonzero(found.stage_of == stage).tolist()) for stage in range(4))
        placed = instance.with_stages(stages)
        assert [len(stage) for stage in stages] == [3, 2, 2, 2]
        assert iteration_s(placed, found.paths) == found.seconds[0]
        assert max(placed.sync_s(stages)) <= limit_s
        visited = found.stage_of[every_round(placed, found.paths)]
        assert all(path_problem(row) is None for row in visited.tolist())
