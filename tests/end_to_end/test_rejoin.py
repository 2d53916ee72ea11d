"""Nodes are killed and come back: losses and weights stay those of the undisturbed run, on all of them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skippipe.report.run_folder import process_ids
from skippipe.schedule import Costs
from skippipe.schedule.plan import make_plan
from tests.end_to_end.conftest import SECONDS, Start, free_ports, wait_for
from tests.end_to_end.exactness import LONG_TOLERANCE, check_exact
from tests.end_to_end.timing import Timing
from tests.small_schedule import STAGES, small_schedule

MORE = 3
"""Iterations that must be done with a node that is back."""
WIDE_STAGES = [[0, 1], [2, 3, 4], [5, 6]]
"""Of which the second goes on even if it loses one node while another comes back."""
WIDE_PATHS = [[0, 2], [0, 5], [0, 3], [0, 6], [1, 4], [1, 5], [1, 2], [1, 6]]


def save_wide_schedule(path: Path) -> None:
    """A schedule of seven nodes, like the small one."""
    small = small_schedule()
    costs = Costs(np.full(7, 0.01), 0.25, 1.5, 0.0013, np.random.default_rng(2).uniform(0.01, 0.03, (7, 7)))
    solver = {"solver": "by hand", "seed": 0, "seconds": 0}
    plan = make_plan(WIDE_STAGES, np.array(WIDE_PATHS), costs, 4, [0.05] * 3, solver)
    dataclasses.replace(
        small,
        locations=("here",) * 7,
        latency_ms=np.ones((7, 7)),
        bandwidth_gib_s=np.ones((7, 7)),
        pipeline=dataclasses.replace(small.pipeline, memory=4, microbatches_per_node=4),
        costs=costs,
        settings={"ca-partial": plan},
    ).save(path)


class Run:
    """A run that is disturbed."""

    def __init__(self, start: Start, workplace: Path, name: str, iterations: int, *fields: str, nodes: int = 6) -> None:
        """Begin it; it has done its first iteration then."""
        self.workplace, self.iterations = workplace, iterations
        self.fields = [f"iterations={iterations}", f"name={name}", f"checkpoint_every={iterations}", *fields]
        more = ["emulation.time_scale=1.5", "peers.silence_seconds=60"]
        self.process: subprocess.Popen[str] = start(
            "0", str(nodes), "ca-partial", "2", f"{workplace}/small.yaml", *more, *self.fields
        )
        self.folder = workplace / "runs" / name
        self.code = 0
        """That it ends with."""
        wait_for(lambda: (self.folder / "metrics.jsonl").exists() and len(process_ids(self.folder)) == nodes)

    def kill(self, node: int) -> int:
        """Kill a node's process, whose id it was."""
        process = process_ids(self.folder)[node]
        os.kill(process, signal.SIGKILL)
        return process

    def wait_for_another(self, node: int, process: int) -> None:
        """Wait until a node has another process."""
        wait_for(lambda: process_ids(self.folder)[node] != process)

    def stop_after(self, reason: str) -> None:
        """Tell the run to stop some iterations after a view has begun for a reason, since it would not end."""
        wait_for(lambda: any(view["reason"] == reason for view in self.views))
        began = next(view["iteration"] for view in self.views if view["reason"] == reason)
        wait_for(lambda: (self.folder / "metrics.jsonl").read_text().count("\n") > began + MORE)
        self.process.send_signal(signal.SIGTERM)
        self.code = 128 + signal.SIGTERM

    def log(self, node: int) -> str:
        """What all processes of a node have said."""
        return (self.folder / f"node-{node}.log").read_text()

    def finish(self, lost: set[int], stages: list[list[int]] = STAGES) -> tuple[str, str]:
        """Wait for the end, and compare everything with the undisturbed run; standard output and error."""
        output, errors = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == self.code, errors
        metrics = (self.folder / "metrics.jsonl").read_text().splitlines()
        precision: dict[str, Any] = {}
        if self.code:
            self.iterations, precision = len(metrics), {"tolerance": LONG_TOLERANCE, "by_number": False}
        arguments = self.workplace, self.folder, self.fields, self.iterations
        check_exact(*arguments, lost=frozenset(lost), stages=stages, **precision)
        self.summary = json.loads((self.folder / "summary.json").read_text())
        assert [json.loads(line)["iteration"] for line in metrics] == list(range(self.iterations))
        return output, errors

    @property
    def views(self) -> list[dict[str, Any]]:
        """The lines of views.jsonl."""
        return [json.loads(line) for line in (self.folder / "views.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("timing", Timing)
def test_a_node_is_killed_and_comes_back(start: Start, workplace: Path, timing: Timing) -> None:
    # In real time nobody knows how many iterations it is away for.
    iterations = 100_000 if timing is Timing.REAL else 12
    run = Run(start, workplace, f"back-{timing.name}", iterations, *timing.fields)
    run.kill(3)
    if timing is Timing.REAL:
        run.stop_after("joined: 3")
    output, errors = run.finish(lost=set())
    views = run.views
    assert [view["reason"] for view in views] == ["the run begins", "lost: 3", "joined: 3"]
    assert [view["way"] for view in views] == ["start", "takeover", "boundary"]
    assert views[2]["members"] == list(range(6))
    assert views[2]["paths"] == views[0]["paths"]
    assert re.search(
        rf"node 3 back in iteration {views[2]['iteration']} with stage 1 of node 2 \(\d.\d MB in \d.\d s\)", errors
    )
    summary = run.summary
    assert (summary["views"], summary["nodes_lost"], summary["nodes_joined"]) == (3, 1, 1)
    assert timing is Timing.REAL or re.search("nodes that came back +1\n", output)


def test_the_node_that_speaks_and_proposes_comes_back_and_another_dies_too_often(start: Start, workplace: Path) -> None:
    run = Run(start, workplace, "speaker", 12, "peers.restart=1")
    first = {node: run.kill(node) for node in (0, 3)}
    run.wait_for_another(3, first[3])
    run.kill(3)
    _, errors = run.finish(lost={3})
    assert run.views[-1]["members"] == [0, 1, 2, 4, 5]
    assert re.search(r"node 0 back in iteration \d+ with stage 0 of node 1", errors)
    assert "node 3 (killed by SIGKILL) has ended 2 times and stays away (peers.restart)" in errors
    assert "node 3 back" not in errors


def test_a_node_that_can_not_be_started_again_stays_away(start: Start, workplace: Path) -> None:
    run = Run(start, workplace, "unstartable", 12, "peers.restart=2")
    process = process_ids(run.folder)[3]
    # Its next processes find no place for their id.
    taken = run.folder / "node-3.pid"
    taken.unlink()
    (taken / "occupied").mkdir(parents=True)
    os.kill(process, signal.SIGKILL)
    _, errors = run.finish(lost={3})
    assert "node 3 (killed by SIGKILL) has ended once and stays away" in errors
    assert run.views[-1]["members"] == [0, 1, 2, 4, 5]


def test_the_donor_is_killed_and_the_joiner_finds_another(start: Start, workplace: Path) -> None:
    schedule = workplace / "wide.json"
    save_wide_schedule(schedule)
    run = Run(start, workplace, "donor", 24, f"schedule={schedule}", nodes=7)
    run.kill(3)
    # Node 2 would hand over its state; whether it could depends on the moment.
    wait_for(lambda: "joined: 3" in run.log(2))
    run.kill(2)
    run.finish(lost=set(), stages=WIDE_STAGES)
    assert run.views[-1]["members"] == list(range(7))


def test_nodes_of_two_launchers_come_back(start: Start, workplace: Path) -> None:
    port = free_ports(6)
    common = ["ca-partial", "2", f"{workplace}/small.yaml", "emulation.time_scale=1.5", "iterations=12"]
    common += [f"peers.first_port={port}", f'peers.bootstrap=["127.0.0.1:{port}"]']
    names = ["here", "there"]
    runs = [
        start(first, last, *common, f"name={name}", SKIPPIPE_SECRET="a secret that both launchers know")
        for name, first, last in (("here", "0", "2"), ("there", "2", "6"))
    ]
    folders = [workplace / "runs" / name for name in names]
    wait_for(lambda: all((folder / "metrics.jsonl").exists() for folder in folders))
    os.kill(process_ids(folders[0])[0], signal.SIGKILL)
    os.kill(process_ids(folders[1])[3], signal.SIGKILL)
    errors = [run.communicate(timeout=SECONDS)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert re.search(r"node 0 back in iteration \d+ with stage 0 of node 1", errors[0])
    assert re.search(r"node 3 back in iteration \d+ with stage 1 of node 2", errors[1])
    views, metrics = ([(folder / name).read_text() for folder in folders] for name in ("views.jsonl", "metrics.jsonl"))
    assert [json.loads(line)["members"] for line in views[0].splitlines()][-1] == list(range(6))
    assert [json.loads(line)["loss"] for line in metrics[0].splitlines()] == [
        json.loads(line)["loss"] for line in metrics[1].splitlines()
    ]
    for folder, replicas in ((folders[0], (0, 1)), (folders[1], (2, 3)), (folders[1], (4, 5))):
        logs = [(folder / f"node-{node}.log").read_text() for node in replicas]
        assert len({re.findall(r"weights (\w+)", log)[0] for log in logs}) == 1
