"""The rule automaton and its compiled check agree with the validator's rules on every possible path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from skippipe.errors import UserError
from skippipe.schedule.validation import path_problem
from skippipe.search.constraints import StageRules, even_walks, obeys_rules


def walks(rules: StageRules, state: int = 0) -> list[tuple[int, ...]]:
    targets = rules.targets[rules.offsets[state] : rules.offsets[state + 1]]
    rest = [walk for target in targets for walk in walks(rules, int(target))] if len(targets) else [()]
    return [(int(rules.stage[state]), *walk) for walk in rest]


@pytest.mark.parametrize(("stages", "length"), [(2, 2), (4, 3), (6, 4), (6, 6), (8, 3), (7, 5)])
def test_automaton_walks_are_the_legal_paths(stages: int, length: int) -> None:
    legal = {walk for walk in itertools.product(range(stages), repeat=length) if path_problem(list(walk)) is None}
    found = walks(StageRules.make(stages, length))
    assert len(found) == len(set(found))
    assert set(found) == legal


def test_compiled_check_agrees_with_the_validator() -> None:
    stage_of = np.arange(7)
    for walk in itertools.product(range(7), repeat=4):
        assert obeys_rules(np.array(walk), stage_of) == (path_problem(list(walk)) is None), walk


def test_no_path_reaches_far_enough() -> None:
    assert len(StageRules.make(30, 2).stage) == 5
    with pytest.raises(UserError, match=r"path_length 3 .* 2 stages"):
        StageRules.make(2, 3)


@pytest.mark.parametrize(("stages", "length", "count"), [(6, 4, 15), (8, 6, 21), (9, 3, 4), (11, 4, 10), (12, 12, 3)])
def test_even_walks_are_legal_and_even(stages: int, length: int, count: int) -> None:
    walks = even_walks(StageRules.make(stages, length), stages, count, np.random.default_rng(0))
    assert all(path_problem(walk.tolist()) is None for walk in walks)
    assert np.bincount(walks.ravel()).tolist() == [count] + [count * (length - 1) // (stages - 1)] * (stages - 1)
