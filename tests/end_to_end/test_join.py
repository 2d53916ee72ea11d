"""Nodes that their launcher has given up, or whose launcher is gone, come back by hand: `run.sh .. --join`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from skippipe.report.run_folder import process_ids
from tests.end_to_end.conftest import SECONDS, Start, free_ports, wait_for
from tests.end_to_end.exactness import check_exact

ITERATIONS = 24


def common(workplace: Path, *more: str) -> list[str]:
    """Arguments that all launchers of a run have after their nodes."""
    fields = [f"iterations={ITERATIONS}", "emulation.time_scale=1.5", "peers.connect_seconds=30", *more]
    return ["ca-partial", "2", f"{workplace}/small.yaml", *fields]


def views(folder: Path) -> list[dict[str, Any]]:
    """The lines of views.jsonl."""
    path = folder / "views.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def members(folder: Path) -> list[int]:
    """Of the last view that has been written."""
    written = views(folder)
    return written[-1]["members"] if written else []


def kill_for_good(folder: Path, node: int) -> None:
    """Kill a node that is not started again, and wait until the others have gone on without it."""
    os.kill(process_ids(folder)[node], signal.SIGKILL)
    wait_for(lambda: bool(members(folder)) and node not in members(folder))


def end(*runs: subprocess.Popen[str]) -> list[tuple[str, str]]:
    """Standard output and error of runs that end well."""
    said = [run.communicate(timeout=SECONDS) for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), said
    return said


def test_nodes_that_stay_away_are_brought_back_by_hand(start: Start, workplace: Path) -> None:
    fields = ["peers.restart=0", f"checkpoint_every={ITERATIONS}", "name=join-by-hand"]
    line = common(workplace, *fields)
    first = start("0", "6", *line)
    folder = workplace / "runs" / "join-by-hand"
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    # The first node of a launcher speaks for it, and the one that speaks for another launcher must not fall silent.
    for node in (0, 3):
        kill_for_good(folder, node)
    again = start("0", "1", *line, "--join")
    # Without a name: the one run that goes on there.
    unnamed = start("3", "4", *[field for field in line if field != "name=join-by-hand"], "--join")
    (_, errors), (_, again_errors), (_, unnamed_errors) = end(first, again, unnamed)
    assert re.search(r"node 0 back in iteration \d+ with stage 0 of node 1", again_errors)
    assert re.search(r"node 3 back in iteration \d+ with stage 1 of node 2", unnamed_errors)
    assert "node 3 (killed by SIGKILL) has ended once and stays away (peers.restart); --join brings it back" in errors
    assert re.search(r"nodes? (0|3|0 and 3) of another launcher joins?", errors)
    assert members(folder) == list(range(6))
    check_exact(workplace, folder, [f"iterations={ITERATIONS}", *fields], ITERATIONS)
    assert json.loads((folder / "summary.json").read_text())["iterations"] == ITERATIONS
    assert not list(folder.glob("launcher-*.json")), "addresses and secret of a run that has ended"


def test_a_machine_that_is_gone_is_replaced_by_another_one(start: Start, workplace: Path) -> None:
    ports = [free_ports(6) for _ in range(2)]
    meeting = f'peers.bootstrap=["127.0.0.1:{ports[0]}"]'
    secret = {"SKIPPIPE_SECRET": "a secret that all machines know"}

    def machine(first: int, last: int, name: str, port: int, *more: str) -> subprocess.Popen[str]:
        fields = [f"name={name}", f"peers.first_port={port}", meeting, "peers.silence_seconds=6"]
        return start(str(first), str(last), *common(workplace, *fields), *more, **secret)

    here, gone = machine(0, 5, "join-stays", ports[0]), machine(5, 6, "join-gone", ports[0])
    folder = workplace / "runs" / "join-stays"
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    os.killpg(gone.pid, signal.SIGKILL)
    wait_for(lambda: 5 not in members(folder) or here.poll() is not None)
    assert here.poll() is None, here.communicate()
    # Another machine: the node is at another address than all know.
    replacing = machine(5, 6, "join-replaces", ports[1], "--join")
    (_, errors), (_, back) = end(here, replacing)
    assert re.search(r"node 5 back in iteration \d+ with stage 2 of node 4", back)
    assert "node 5 of another launcher joins" in errors
    assert members(folder) == list(range(6))
    logs = [
        (workplace / "runs" / name / f"node-{node}.log").read_text()
        for name, node in (("join-stays", 4), ("join-replaces", 5))
    ]
    assert len({re.findall(r"weights (\w+)", log)[0] for log in logs}) == 1


def test_a_node_that_is_there_is_not_replaced(start: Start, workplace: Path) -> None:
    line = common(workplace, "name=join-there", "iterations=100000")
    run = start("0", "6", *line)
    folder = workplace / "runs" / "join-there"
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    second = start("3", "4", *line, "--join")
    _, errors = second.communicate(timeout=SECONDS)
    assert second.returncode == 2
    assert "another launcher runs node 3" in errors
    other = start("3", "4", *line, "optimizer.learning_rate=0.0123", "--join")
    assert other.wait(timeout=SECONDS) == 2
    assert run.poll() is None


def test_who_runs_something_else_is_told_so_at_once(start: Start, workplace: Path) -> None:
    line = common(workplace, "name=join-differs", "iterations=100000", "peers.restart=0")
    run = start("0", "6", *line)
    folder = workplace / "runs" / "join-differs"
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    kill_for_good(folder, 3)
    other = start("3", "4", *line, "optimizer.learning_rate=0.0123", "peers.connect_seconds=3600", "--join")
    _, errors = other.communicate(timeout=SECONDS)
    assert other.returncode == 1
    assert "it differs in: optimizer.learning_rate (0.0123 here)" in errors
    assert run.poll() is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["name=nowhere"], "--join: no launcher on this machine has the run nowhere of 6 nodes under way"),
        ([], "--join: no launcher on this machine has a run of 6 nodes under way"),
        (['peers.bootstrap=["127.0.0.1:4000"]'], "set peers.first_port"),
    ],
)
def test_what_is_missing_to_join_is_said(start: Start, workplace: Path, fields: list[str], said: str) -> None:
    elsewhere = f"runs={workplace}/no-runs"
    run = start("3", "4", *common(workplace, elsewhere, *fields), "--join")
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 2
    assert said in errors
