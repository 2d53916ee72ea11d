"""A node whose torch thread hangs, wherever that is, is named and left out; one that is slow is named and stays."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from tests.cases import drives
from tests.end_to_end.conftest import SECONDS, Start, wait_for
from tests.end_to_end.timing import Timing
from tests.faults import Fault

# The first replica of its stage, which leads it: it alone has the sum of squares and the validation to do.
NODE = 2


@drives(Fault.HANGS_IN_TASK, Fault.HANGS_IN_SYNC, Fault.HANGS_IN_VALIDATION, Fault.HANGS_IN_SAVING)
def test_a_node_that_hangs_is_named_and_the_others_go_on(fault: Fault, start: Start, workplace: Path) -> None:
    # The first hang is no death; one that follows as soon as the node is back is, as far as its restarts are counted.
    restarts, lost, ended = (1, 3, "3 times") if fault is Fault.HANGS_IN_TASK else (0, 1, "once")
    # One that comes back does so in the middle of other iterations, which must last until then.
    timing = Timing.EMULATED if restarts else Timing.REAL
    fields = [f"name={fault.name}", "iterations=16", "evaluate_every=1", f"peers.restart={restarts}", *timing.fields]
    fields += ["checkpoint_every=1"] if fault is Fault.HANGS_IN_SAVING else []
    line = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "peers.connect_seconds=6", *fields)
    run = start(*line, patched=("hanging", fault.what, str(NODE)))
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors
    folder = workplace / "runs" / fault.name
    logs = "".join((folder / f"node-{node}.log").read_text() for node in range(6))
    assert re.findall(rf"node {NODE} hangs: {fault.line} has taken \d+ s", logs), logs
    assert f"node {NODE} (the others had gone on without it) has ended {ended} and stays away (peers.restart)" in errors
    reasons = [json.loads(line)["reason"] for line in (folder / "views.jsonl").read_text().splitlines()]
    assert [reason for reason in reasons if reason.startswith("lost")] == [f"lost: {NODE}"] * lost
    assert [reason for reason in reasons if reason.startswith("joined")] == [f"joined: {NODE}"] * (lost - 1)
    assert json.loads((folder / "summary.json").read_text())["iterations"] == 16


@drives(Fault.STOPPED_JOINING)
def test_a_process_that_stands_still_while_it_joins_is_ended_and_another_one_joins(
    fault: Fault, start: Start, workplace: Path
) -> None:
    line = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", f"name={fault.name}", "iterations=100000")
    run = start(*line, "peers.silence_seconds=6", *Timing.REAL.fields, patched=("hanging", fault.what, str(NODE)))
    folder = workplace / "runs" / fault.name
    log = folder / f"node-{NODE}.log"
    # The first process, and the third.
    wait_for(lambda: log.exists() and log.read_text().count(f"node {NODE} ready in ") == 2)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 128 + signal.SIGTERM, errors
    assert fault.line in errors
    assert f"node {NODE} back in iteration " in errors


@drives(Fault.SLOW)
def test_a_slow_node_is_told_and_stays(fault: Fault, start: Start, workplace: Path) -> None:
    line = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=slow-node", "iterations=8")
    run = start(*line, patched=("hanging", fault.what, str(NODE)))
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, errors
    assert fault.line in errors
    assert len((workplace / "runs" / "slow-node" / "views.jsonl").read_text().splitlines()) == 1
