"""Conflict-based search: constraints kept, rounds without collisions found."""

from __future__ import annotations

import numpy as np
import pytest

from skippipe.search.conflict_search import ConflictSearch
from skippipe.search.progress import Progress
from skippipe.search.rounds import every_round, plan_of
from tests.search.instances import random_instance


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("aware", [False, True])
def test_conflict_search_keeps_the_constraints(shared: bool, aware: bool) -> None:
    instance = random_instance((3, 2, 2, 2), 3, 2, 4, 5)
    search = ConflictSearch(instance, shared, aware, np.random.default_rng(0))
    with Progress().phase("test", 60, 60.0) as phase:
        paths = search.run(phase)
    assert paths is not None
    visits = np.bincount(paths[:, 1:].ravel(), minlength=9)
    assert (visits[3:] == (1 if shared else 2)).all()
    plan = plan_of(instance, every_round(instance, paths), {})
    instance.schedule({"ca-partial": plan}).validate()
    assert plan.expected_iteration_s == pytest.approx(search.best_seconds)


@pytest.mark.parametrize("aware", [False, True])
def test_some_solution_is_found_even_if_nodes_hold_just_what_there_is(aware: bool) -> None:
    """Eight stages and paths of three: the last of 21 microbatches hardly ever finds what is left by greed alone."""
    instance = random_instance((7, *[2] * 7), 3, 3, 3, 4)
    search = ConflictSearch(instance, False, aware, np.random.default_rng(0))
    with Progress().phase("test", 1, 60.0) as phase:
        paths = search.run(phase)
    assert paths is not None
    assert (np.bincount(paths[:, 1:].ravel(), minlength=21)[7:] == 3).all()
    instance.schedule({"ca-partial": plan_of(instance, every_round(instance, paths), {})}).validate()


def test_a_split_on_a_collision_is_a_heuristic() -> None:
    """Each child keeps one microbatch out of the other's window, so both in each other's windows is never found."""
    instance = random_instance((3, 2, 2, 2), 3, 3, 3, 1)
    search = ConflictSearch(instance, False, True, np.random.default_rng(0))
    with Progress().phase("test", 1, 60.0) as phase:
        parent = search.root(phase)
    assert parent is not None
    while (search.visits(parent.paths) > search.capacity).any() or not search.split(parent):
        parent = min(search.children(parent), key=lambda child: child.conflicts)
    (first, _, first_must_avoid), (second, _, second_must_avoid) = search.split(parent)
    assert first != second
    taken = dict(search.collisions(parent.paths, parent.times, everything=False)[0])
    assert set(taken) == {first, second}
    assert first_must_avoid == taken[second]
    assert second_must_avoid == taken[first]


def test_a_clash_free_round_is_found_if_there_is_one() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 1, 1, 8)
    search = ConflictSearch(instance, False, True, np.random.default_rng(0))
    with Progress().phase("test", 500, 60.0) as phase:
        assert search.run(phase) is not None
        root = search.root(phase)
    assert root is not None
    assert search.best_seconds >= root.times[:, -1].max()
