"""Timelines: the times of a small schedule worked out by hand, and what holds for every setting of the shipped ones."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from skippipe.schedule import Costs, Plan, Schedule
from skippipe.schedule.plan import make_plan
from skippipe.schedule.timeline import LINK, SYNC, Span, Timeline, plan_timeline

SHIPPED = {
    (name, setting): schedule
    for name in ("original-20-nodes", "original-20-nodes-and-joint")
    for schedule in [Schedule.load(name)]
    for setting in schedule.settings
}
ALL_SETTINGS = pytest.mark.parametrize(("name", "setting"), SHIPPED)


def two_nodes(microbatches: int) -> Timeline:
    """Two nodes, a stage each: forward 1 s, loss 0.25 s, backward 1.5 s, 0.1 s between tasks, 0.5 s a hop."""
    costs = Costs(np.ones(2), 0.25, 1.5, 0.1, np.array([[0.0, 0.5], [0.5, 0.0]]))
    plan = make_plan([[0], [1]], np.array([[0, 1]] * microbatches), costs, microbatches, [2.0, 3.0], {})
    return plan_timeline(plan, costs)


def test_one_microbatch_by_hand() -> None:
    timeline = two_nodes(1)
    found = [(span.node, span.name, span.start_s, span.end_s) for span in timeline.of_microbatch(0)]
    assert found == [
        (0, "F0", 0.0, 1.0),
        (0, "link 0", 1.0, 1.5),
        (1, "F0", 1.5, 2.5),
        (1, "link 0", 2.5, 3.0),
        (0, "L0", 3.0, 3.25),
        (0, "link 0", 3.25, 3.75),
        (1, "B0", 3.75, 5.25),
        (1, "link 0", 5.25, 5.75),
        (0, "B0", 5.75, 7.25),
    ]
    assert [span for span in timeline if span.kind == SYNC] == [
        Span(0, SYNC, None, 7.25, 9.25),
        Span(1, SYNC, None, 5.25, 8.25),
    ]
    assert (timeline.iteration_s, timeline.step_s) == (7.25, 9.25)


def test_a_node_rests_between_two_tasks() -> None:
    begins = [(span.name, span.start_s) for span in two_nodes(2).of_node(0)]
    assert begins[:4] == [("F0", 0.0), ("F1", 1.1), ("L0", 3.0), ("L1", pytest.approx(4.1))]
    assert begins[-1][0] == SYNC


@ALL_SETTINGS
def test_ends_are_the_expected_times(name: str, setting: str) -> None:
    schedule = SHIPPED[name, setting]
    plan, timeline = schedule.plan(setting), schedule.simulate(setting)
    assert timeline.iteration_s == pytest.approx(plan.expected_iteration_s, rel=1e-9)
    assert timeline.step_s == pytest.approx(plan.expected_step_s, rel=1e-9)


@ALL_SETTINGS
def test_each_node_runs_its_order_one_task_after_another(name: str, setting: str) -> None:
    schedule = SHIPPED[name, setting]
    plan, timeline = schedule.plan(setting), schedule.simulate(setting)
    gap_s = schedule.costs.task_gap_s
    assert timeline.nodes == list(range(schedule.nodes))
    for node in timeline.nodes:
        *tasks, sync = timeline.of_node(node)
        assert [task.name for task in tasks] == [str(task) for task in plan.order[node]]
        assert all(later.start_s >= earlier.end_s + gap_s - 1e-9 for earlier, later in pairwise(tasks))
        assert sync.kind == SYNC
        assert all(task.end_s <= sync.start_s + 1e-9 for task in tasks)


@ALL_SETTINGS
def test_each_microbatch_goes_its_path_and_back(name: str, setting: str) -> None:
    schedule = SHIPPED[name, setting]
    plan, timeline = schedule.plan(setting), schedule.simulate(setting)
    for microbatch, path in enumerate(plan.paths):
        spans = timeline.of_microbatch(microbatch)
        assert [span.node for span in spans if span.is_task] == [*path, path[0], *reversed(path)]
        assert all(later.start_s >= earlier.end_s - 1e-9 for earlier, later in pairwise(spans))
        assert [span.kind == LINK for span in spans] == [False, True] * (2 * len(path)) + [False]


def test_kinds_are_complete() -> None:
    schedule = SHIPPED["original-20-nodes", "ca-partial"]
    plan: Plan = schedule.plan("ca-partial")
    visits = len(plan.paths) * plan.path_length
    kinds = Counter(span.kind for span in schedule.simulate("ca-partial"))
    assert kinds == {
        "forward": visits,
        "backward": visits,
        "loss": len(plan.paths),
        "link": 2 * visits,
        "sync": schedule.nodes,
    }


def test_shown_as_a_table() -> None:
    timeline = two_nodes(2)
    assert repr(timeline) == f"Timeline({len(timeline)} spans of 2 nodes, iteration 8.850 s, step 10.850 s)"
    first, heads, *rows = str(timeline).splitlines()
    assert first.startswith("iteration 8.850 s, step 10.850 s")
    assert heads.split() == ["node", "tasks", "first", "last", "busy", "synced"]
    assert [row.split() for row in rows] == [
        ["0", "6", "0.00", "8.85", "5.50", "10.85"],
        ["1", "4", "1.50", "6.85", "5.00", "9.85"],
    ]


def test_what_is_not_there_has_no_spans() -> None:
    assert two_nodes(1).of_node(7) == two_nodes(1).of_microbatch(7) == []
