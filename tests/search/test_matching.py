"""Bottleneck matchings and the order of the stages against every one there is."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.search.baselines import bottleneck_assignment
from skippipe.search.matching import bottleneck, nearest_next, stage_order


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(4, 5))
@settings(max_examples=40, deadline=None)
def test_bottleneck_matchings_are_least(seed: int, rows: int, columns: int) -> None:
    hop_s = np.random.default_rng(seed).uniform(0, 9, (9, 9))
    left, right = np.arange(rows), np.arange(4, 4 + columns)
    chosen = bottleneck_assignment(hop_s[np.ix_(left, right)])
    assert len(set(chosen)) == rows
    assert np.isclose(hop_s[left, right[chosen]].max(), bottleneck(left, right, hop_s))
    matchings = (zip(left, order, strict=True) for order in itertools.permutations(right, rows))
    least = min(max(hop_s[a, b] for a, b in matching) for matching in matchings)
    assert np.isclose(least, bottleneck(left, right, hop_s))


@given(st.integers(0, 10**6), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_stage_order_is_the_shortest_walk(seed: int, stages: int) -> None:
    weight = np.random.default_rng(seed).uniform(0, 9, (stages, stages))
    length, order = stage_order(weight)
    walks = [(0, *rest) for rest in itertools.permutations(range(1, stages))]
    lengths = [sum(weight[walk[i], walk[i + 1]] for i in range(stages - 1)) for walk in walks]
    assert np.isclose(length, min(lengths))
    assert np.isclose(length, sum(weight[order[i], order[i + 1]] for i in range(stages - 1)))
    greedy_length, greedy = nearest_next(weight)
    assert sorted(greedy) == list(range(stages))
    assert greedy_length >= length - 1e-9


def test_more_stages_than_are_ordered_exactly() -> None:
    length, order = stage_order(np.random.default_rng(0).uniform(0, 9, (14, 14)))
    assert sorted(order) == list(range(14))
    assert length > 0
