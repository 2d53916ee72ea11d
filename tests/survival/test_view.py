"""Views travel as bytes: the same view comes out, and whatever is malformed is refused before anyone acts on it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.survival.succession import plan_of_the_living
from skippipe.survival.view import View
from tests.small_schedule import NODES, small_schedule
from tests.survival.instances import random_losses, random_schedule

SCHEDULE = small_schedule()
PLAN = plan_of_the_living(
    SCHEDULE.plan("baseline"), {1, 4}, SCHEDULE.costs, SCHEDULE.bandwidth_gib_s, SCHEDULE.pipeline.sync_bytes
)
ROW = (0.1 + 0.2, 1e-320, -0.0, 2.0**53, math.nan, math.inf, -math.inf)
VIEW = View(
    number=3,
    first_iteration=7,
    way="takeover",
    reason="lost: 1, 4",
    plan=PLAN,
    committed=6,
    figures={node: ROW for node in range(NODES)},
    lost=(1, 4),
    joined=(),
    detected_s=1760000000.123456,
    resumed_s=None,
)


def test_the_same_view_comes_out() -> None:
    first = View(0, 1, "start", "start", SCHEDULE.plan("ca-partial"), 0)
    back = replace(VIEW, way="boundary", committed=6, joined=(0,), donors={0: 2}, resumed_s=-3.5)
    moving = replace(back, donors={0: 2, 5: 3}, fallback=SCHEDULE.plan("ca-partial"))
    assert (back.moved, moving.moved) == ((), (5,))
    taking = replace(VIEW, way="redo", restored={3: ()})
    assert taking.moved == (3,)
    for view in (VIEW, first, back, moving, taking):
        data = view.to_bytes()
        again = View.from_bytes(data, NODES)
        assert again == view
        assert again.to_bytes() == data
    assert VIEW.members == (0, 2, 3, 5)
    assert [math.copysign(1, value) for value in View.from_bytes(VIEW.to_bytes(), NODES).figures[0]][2] == -1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_any_plan_of_the_living_travels(seed: int) -> None:
    schedule = random_schedule(seed)
    plan, lost = schedule.plan("any"), random_losses(schedule.plan("any"), np.random.default_rng(seed))
    living = plan_of_the_living(plan, lost, schedule.costs, schedule.bandwidth_gib_s, schedule.pipeline.sync_bytes)
    view = View(1, 0, "redo", "lost", living, -1, lost=tuple(sorted(lost)))
    assert View.from_bytes(view.to_bytes(), schedule.nodes) == view


def test_the_line_of_views_jsonl() -> None:
    line = json.loads(json.dumps(VIEW.document(), allow_nan=False))
    assert line == {
        "number": 3,
        "iteration": 7,
        "members": [0, 2, 3, 5],
        "stages": [[0], [2, 3], [5]],
        "paths": [list(path) for path in PLAN.paths],
        "reason": "lost: 1, 4",
        "way": "takeover",
        "detected_s": 1760000000.123456,
        "resumed_s": None,
        "expected_step_s": PLAN.expected_step_s,
    }


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown field": (lambda d: d.update(extra=1), "extra"),
    "missing field": (lambda d: d.pop("way"), "no field way"),
    "number true": (lambda d: d.update(number=True), "number"),
    "number negative": (lambda d: d.update(number=-1), "number"),
    "iteration a float": (lambda d: d.update(first_iteration=7.0), "first_iteration"),
    "way of nobody": (lambda d: d.update(way="leap"), "way must be one of start"),
    "way a list": (lambda d: d.update(way=[]), "way"),
    "reason a number": (lambda d: d.update(reason=4), "reason"),
    "reason of two lines": (lambda d: d.update(reason="lost\n: 4"), "one line"),
    "reason without end": (lambda d: d.update(reason="4" * 10**6), "100000 characters"),
    "half a character": (lambda d: d.update(reason="\ud800"), "one line"),
    "committed too early": (lambda d: d.update(committed=-2), "committed"),
    "committed and running": (lambda d: d.update(committed=7), "iteration 7 is committed"),
    "figures a list": (lambda d: d.update(figures=[]), "figures must be a mapping"),
    "figures of a name": (lambda d: d["figures"].update({"01": []}), "no node's number"),
    "figures of nobody": (lambda d: d["figures"].update({"6": list(d["figures"]["0"])}), "names node 6"),
    "figure of text": (lambda d: d["figures"]["0"].__setitem__(0, "1.0"), "figures of node 0"),
    "figure null": (lambda d: d["figures"]["0"].__setitem__(0, None), "figures of node 0"),
    "figure true": (lambda d: d["figures"]["0"].__setitem__(0, True), "figures of node 0"),
    "figure of digits": (lambda d: d["figures"]["0"].__setitem__(0, 10**400), "figures of node 0"),
    "short row": (lambda d: d["figures"]["0"].pop(), "as many numbers for each node"),
    "wide rows": (lambda d: d.update(figures={"0": [0.0] * 1000}), "1000 entries"),
    "lost a number": (lambda d: d.update(lost=1), "lost must be a list"),
    "lost twice": (lambda d: d.update(lost=[1, 1]), "lost must name each node once"),
    "lost and there": (lambda d: d.update(lost=[0]), "node 0 is lost and a member"),
    "lost of nobody": (lambda d: d.update(lost=[99]), "lost names node 99"),
    "donors a list": (lambda d: d.update(donors=[]), "donors must be a mapping"),
    "donor of nobody": (lambda d: d.update(donors={"9": 0}), "donors of node 9 names node 9"),
    "donor a name": (lambda d: d.update(donors={"0": "2"}), "donors of node 0"),
    "donor away": (lambda d: d.update(way="boundary", donors={"0": 1}), "donors names node 1, which is no member"),
    "donor in a takeover": (lambda d: d.update(donors={"0": 2}), "donors of a view whose way is takeover"),
    "donor that has joined": (
        lambda d: d.update(way="boundary", joined=[0, 2], donors={"0": 2, "2": 3}),
        "node 2 is asked for a state and has just joined",
    ),
    "joined and left alone": (lambda d: d.update(way="boundary", joined=[0]), "donors has nobody for node 0"),
    "restored in a takeover": (lambda d: d.update(restored={"0": []}), "donors of a view whose way is takeover"),
    "restored of nobody": (
        lambda d: d.update(way="boundary", restored={"0": []}),
        "must name nodes if",
    ),
    "restored of others": (
        lambda d: d.update(way="redo", restored={"0": [2]}),
        "must name nodes if",
    ),
    "restored of one twice": (lambda d: d.update(way="boundary", restored={"0": [2, 2]}), "must name nodes once"),
    "no way back": (lambda d: d.update(way="boundary", donors={"0": 2}), "fallback must be there"),
    "a way back for nobody": (lambda d: d.update(fallback=d["plan"]), "fallback must be there"),
    "fallback a number": (lambda d: d.update(fallback=1), "fallback must be a mapping"),
    "joined and away": (lambda d: d.update(joined=[1]), "node 1 has joined and is no member"),
    "joined in disorder": (lambda d: d.update(joined=[5, 0]), "ascending"),
    "time of text": (lambda d: d.update(detected_s="1"), "detected_s"),
    "time of digits": (lambda d: d.update(resumed_s=10**400), "resumed_s"),
    "plan null": (lambda d: d.update(plan=None), "plan must be a mapping"),
    "plan with more": (lambda d: d["plan"].update(extra=1), "plan has an unknown field"),
    "member of nobody": (lambda d: d["plan"]["stages"][0].append(6), "names node 6"),
    "task missing": (lambda d: d["plan"]["order"]["0"].pop(), "misses task"),
    "circle": (lambda d: d["plan"]["order"]["0"].reverse(), "waits for ever"),
    "path of the lost": (lambda d: d["plan"]["microbatches"][0].update(path=[1, 2, 5]), "node 1, which is in no stage"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_views_are_refused(case: str) -> None:
    change, message = MALFORMED[case]
    document = json.loads(VIEW.to_bytes())
    change(document)
    with pytest.raises(ValueError, match=message):
        View.from_bytes(json.dumps(document).encode(), NODES)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 5000])
def test_values_that_are_no_numbers(value: str) -> None:
    data = VIEW.to_bytes().replace(b"1760000000.123456", value.encode())
    assert data != VIEW.to_bytes()
    with pytest.raises(ValueError, match=r"not a number|too large|must be a number|digits"):
        View.from_bytes(data, NODES)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 10**5, VIEW.to_bytes()[:-1]])
def test_bytes_that_are_no_view(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"view|JSON|decode|Expecting|Unterminated"):
        View.from_bytes(data, NODES)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_value_stands_anywhere_nothing_but_a_value_error_comes(data: st.DataObject) -> None:
    document = json.loads(VIEW.to_bytes())
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    scalars = st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=5))
    place[key] = data.draw(st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(), scalars)))
    try:
        view = View.from_bytes(json.dumps(document).encode(), NODES)
    except ValueError:
        return
    assert View.from_bytes(view.to_bytes(), NODES) == view


def test_a_view_has_the_work_of_the_one_before() -> None:
    VIEW.check_same_work(None, None)
    VIEW.check_same_work(VIEW, VIEW)
    for plan, name in (
        (replace(VIEW.plan, paths=VIEW.plan.paths[1:]), "microbatches"),
        (replace(VIEW.plan, stages=VIEW.plan.stages[1:]), "stages"),
    ):
        with pytest.raises(ValueError, match=rf"the view's plan has \d+ {name}, the one before \d+"):
            VIEW.check_same_work(replace(VIEW, plan=plan), None)
