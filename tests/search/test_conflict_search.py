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


def test_a_clash_free_round_is_found_if_there_is_one() -> None:
    instance = random_instance((3, 2, 2, 2), 3, 1, 1, 8)
    search = ConflictSearch(instance, False, True, np.random.default_rng(0))
    with Progress().phase("test", 500, 60.0) as phase:
        assert search.run(phase) is not None
        root = search.root(phase)
    assert root is not None
    assert search.best_seconds >= root.times[:, -1].max()
