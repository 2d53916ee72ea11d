"""Whoever is left can reach each other, and few have to leave."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skippipe.schedule import Plan
from skippipe.survival.course import Course, Report
from skippipe.survival.following import Planner, next_view
from skippipe.survival.succession import plan_of_the_living
from skippipe.survival.suspicion import to_exclude
from skippipe.survival.view import View
from tests.small_schedule import small_schedule


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


class Heirs(Planner):
    """Lets living replicas take over."""

    def succeed(self, view: View, iteration: int, lost: Collection[int]) -> Plan:
        return plan_of_the_living(view.plan, lost, small_schedule().costs, np.ones((6, 6)), [1.0] * 3)


@pytest.mark.parametrize(
    ("suspect", "hangs", "lost"),
    [
        pytest.param(3, False, 3, id="of the two ends of a link the higher leaves"),
        pytest.param(0, False, 1, id="even if it is the one that noticed"),
        pytest.param(3, True, 3, id="a node that hangs leaves"),
        pytest.param(0, True, 0, id="and not whoever has heard so, whose number is higher"),
    ],
)
def test_a_takeover_is_without_the_end_of_a_lost_link_and_without_who_hangs(
    suspect: int, hangs: bool, lost: int
) -> None:
    plan = small_schedule().plan("ca-partial")
    view = View(0, 0, "start", "the run begins", plan, -1)
    named = {1: ([suspect], [suspect] if hangs else ())}
    reports = {node: Course(view, 0).report(True, *named.get(node, ((), ()))) for node in range(6)}
    sent = {node: Report.from_bytes(report.to_bytes(), 6) for node, report in reports.items()}
    assert sent == reports
    following = next_view(Course(view, 0), sent, (), Heirs(), None)
    assert (following.way, following.lost) == ("takeover", (lost,))
