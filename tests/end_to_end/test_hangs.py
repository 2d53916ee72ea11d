"""A node whose torch thread hangs, wherever that is, is named and left out; one that is slow is named and stays."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.conftest import SECONDS, Start
from tests.end_to_end.hanging import FIRST_SLOW, SLOW, Place

# The first replica of its stage, which leads it: it alone has the sum of squares and the validation to do.
NODE = 2
AGAIN = "node 2 (the others had gone on without it) has ended once and stays away (peers.restart)"


@pytest.mark.parametrize("place", Place)
def test_a_node_that_hangs_is_named_and_the_others_go_on(place: Place, start: Start, workplace: Path) -> None:
    # One that hangs again as soon as it is back has died, as far as its restarts are counted.
    restarts = 1 if place is Place.TASK else 0
    name = f"hangs-{place.name}"
    fields = [
        f"name={name}",
        "iterations=6",
        "evaluate_every=1",
        "peers.connect_seconds=6",
        f"peers.restart={restarts}",
    ]
    run = start(
        "0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, patched=("hanging", place.name, str(NODE))
    )
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors
    folder = workplace / "runs" / name
    logs = "".join((folder / f"node-{node}.log").read_text() for node in range(6))
    hangs = re.findall(rf"node {NODE} hangs: {place.value} has taken \d+ s", logs)
    assert hangs, logs
    assert AGAIN in errors
    lines = [json.loads(line) for line in (folder / "views.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines if line["reason"].startswith("lost")] == [f"lost: {NODE}"] * (1 + restarts)
    assert [line["reason"] for line in lines if line["reason"].startswith("joined")] == [f"joined: {NODE}"] * restarts
    assert json.loads((folder / "summary.json").read_text())["iterations"] == 6


def test_a_slow_node_is_told_and_stays(start: Start, workplace: Path) -> None:
    line = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=slow", "iterations=8")
    run = start(*line, patched=("hanging", SLOW, str(NODE)))
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors
    assert f"node {NODE} is slow from iteration {FIRST_SLOW} on: its tasks take " in errors
    assert len((workplace / "runs" / "slow" / "views.jsonl").read_text().splitlines()) == 1
