"""Whoever is left can reach each other, and few have to leave."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from skippipe.survival.suspicion import to_exclude


def test_one_broken_link_costs_the_end_with_the_higher_number() -> None:
    assert to_exclude({0: [3], 1: [], 2: [], 3: []}) == {3}
    assert to_exclude({0: [], 1: [], 2: [], 3: [0]}) == {3}


def test_a_member_that_reaches_nobody_leaves_alone() -> None:
    assert to_exclude({0: [1, 2, 3], 1: [], 2: [], 3: []}) == {0}
    assert to_exclude({0: [2], 1: [2], 2: [], 3: [2]}) == {2}


def test_who_is_no_member_is_not_missed() -> None:
    assert to_exclude({0: [7], 1: [7]}) == set()


@given(st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 8)), max_size=7))
def test_nobody_that_stays_suspects_anybody_that_stays(suspicions: dict[int, set[int]]) -> None:
    suspicions = {member: others - {member} for member, others in suspicions.items()}
    stay = suspicions.keys() - to_exclude(suspicions)
    assert not any(other in suspicions[member] for member, other in itertools.permutations(stay, 2))
    # Nobody leaves for nothing.
    for member in to_exclude(suspicions):
        assert any(other in suspicions[member] or member in suspicions[other] for other in suspicions)
