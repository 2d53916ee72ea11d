"""Several machines, each a launcher of its own: they must run the same, once, and need not share a clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skippipe.report.run_folder import process_ids
from tests.cases import drives
from tests.end_to_end.conftest import SECONDS, Start, free_ports, wait_for
from tests.faults import Fault

SECRET = {"SKIPPIPE_SECRET": "a secret that both machines know"}
CLOCK_AHEAD = 1_000_000


def machines(workplace: Path, *fields: str) -> list[list[str]]:
    """Arguments of two machines that run nodes 0 and 1, and 2 to 5."""
    port = free_ports(6)
    meeting = [f'peers.bootstrap=["127.0.0.1:{port}"]']
    common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}", *meeting, *fields]
    return [["0", "2", *common], ["2", "6", *common]]


@drives(Fault.OTHER_RATE, Fault.OTHER_SEED, Fault.OTHER_TEXT)
def test_machines_that_differ_say_in_what_and_end_at_once(fault: Fault, start: Start, workplace: Path) -> None:
    here, there = machines(workplace)
    name = fault.what.partition("=")[0]
    runs = [
        start(*here, f"name=same-{name}", **SECRET),
        start(*there, fault.what, f"name=other-{name}", **SECRET),
    ]
    errors = [run.communicate(timeout=SECONDS)[1] for run in runs]
    assert [run.returncode for run in runs] == [1, 1]
    assert fault.line in errors[1]
    assert all(f"runs something else; it differs in: {name} (" in text for text in errors)


def clocks_can_differ() -> bool:
    """Whether this process may make time namespaces."""
    command = ["unshare", "--time", "--monotonic=1", "--boottime=1", "--fork", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@drives(Fault.OTHER_CLOCK)
def test_machines_whose_clocks_differ_wait_for_no_clock_and_agree_on_the_figures(
    fault: Fault, start: Start, workplace: Path
) -> None:
    if not clocks_can_differ():
        pytest.skip("needs root and unshare to make time namespaces")
    here, there = machines(workplace)
    runs = [
        start(*here, "name=clock-here", **SECRET),
        start(*there, "name=clock-ahead", clock_ahead=CLOCK_AHEAD, **SECRET),
    ]
    for run in runs:
        _, errors = run.communicate(timeout=SECONDS)
        assert run.returncode == 0, errors
    folders = [workplace / "runs" / name for name in ("clock-here", "clock-ahead")]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    for summary in summaries:
        # Emulation can't be faster than expected; a loaded machine may be slower, but not by the clocks' difference.
        assert 0.9 * summary["expected_step_s"] < summary["measured_step_s"] < 100
    assert summaries[0]["measured_step_s"] == pytest.approx(summaries[1]["measured_step_s"], abs=0.1)
    spans = [json.loads(line) for folder in folders for line in (folder / "timeline.jsonl").read_text().splitlines()]
    begins = [span["start_s"] for span in spans if span["iteration"] == 0]
    assert max(begins) - min(begins) < 100


@drives(Fault.BACK_WITHOUT_NODE_0)
def test_a_node_that_comes_back_without_node_0_keeps_the_runs_time(fault: Fault, start: Start, workplace: Path) -> None:
    if not clocks_can_differ():
        pytest.skip("needs root and unshare to make time namespaces")
    here, there = machines(workplace, "iterations=16", "emulation.time_scale=1.5")
    folders = [workplace / "runs" / name for name in ("time-here", "time-ahead")]
    # Node 0 stays away; who knows its clock are those that were connected to it.
    runs = [
        start(*here, "name=time-here", "peers.restart=0", **SECRET),
        start(*there, "name=time-ahead", clock_ahead=CLOCK_AHEAD, **SECRET),
    ]
    wait_for(lambda: all((folder / "metrics.jsonl").exists() for folder in folders))
    views = folders[1] / "views.jsonl"
    os.kill(process_ids(folders[0])[0], signal.SIGKILL)
    wait_for(lambda: "lost: 0" in views.read_text())
    os.kill(process_ids(folders[1])[3], signal.SIGKILL)
    for run in runs:
        _, errors = run.communicate(timeout=SECONDS)
        assert run.returncode == 0, errors
    assert "joined: 3" in views.read_text()
    steps = [json.loads(line)["step_s"] for line in (folders[0] / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 16
    assert max(steps) < 100, "of clocks that differ by a million seconds"


@drives(Fault.SAME_FOLDER_TWICE)
def test_two_launchers_do_not_run_the_same_nodes_in_a_folder(fault: Fault, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from skippipe.runtime.claims import Claims\n"
        "Claims(pathlib.Path(sys.argv[1])).take(range(int(sys.argv[2]), int(sys.argv[3])))\n"
        "print('claimed', flush=True); sys.stdin.read()"
    )

    def launcher(first: int, last: int) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", code, tmp_path, str(first), str(last)], text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    holding = launcher(0, 3)
    assert holding.stdout is not None
    assert holding.stdout.readline() == "claimed\n"
    _, error = launcher(2, 6).communicate("", timeout=SECONDS)
    assert fault.line in error
    assert launcher(3, 6).communicate("", timeout=SECONDS)[0] == "claimed\n"
    holding.communicate("", timeout=SECONDS)
    assert launcher(0, 3).communicate("", timeout=SECONDS)[0] == "claimed\n"


@drives(Fault.SAME_NODES_TWICE)
def test_a_second_machine_with_the_same_nodes_is_refused_and_the_run_goes_on(
    fault: Fault, start: Start, workplace: Path
) -> None:
    here, there = machines(workplace, "iterations=100000")
    first = [start(*here, "name=once-here", **SECRET), start(*there, "name=once-there", **SECRET)]
    metrics = workplace / "runs" / "once-here" / "metrics.jsonl"
    deadline = time.monotonic() + SECONDS
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    port = free_ports(6)
    moved = [f"peers.first_port={port}" if field.startswith("peers.first_port=") else field for field in there]
    second = start(*moved, "name=twice-there", **SECRET)
    _, errors = second.communicate(timeout=SECONDS)
    assert second.returncode == 1
    assert fault.line in errors
    assert all(run.poll() is None for run in first)
