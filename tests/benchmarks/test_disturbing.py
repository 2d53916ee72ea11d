"""What disturbs runs from outside: whom it may signal, how it follows a run, and what it finds left of one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.disturbing import DisturbedRun, output_of
from skippipe.report.metrics import read_summary
from tests.end_to_end.conftest import alive, wait_for
from tests.small_schedule import make_workplace


def test_a_signal_reaches_the_node_and_nobody_who_is_not_of_the_run(run: DisturbedRun) -> None:
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        (run.folder / "node-1.pid").write_text(str(stranger.pid))
        assert not run.signal(1, signal.SIGKILL)
        assert not run.signal(2, signal.SIGKILL)
        assert run.signal(0, signal.SIGKILL)
        wait_for(lambda: not run.signal(0, signal.SIGKILL))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_is_left_of_a_run_is_found(run: DisturbedRun) -> None:
    pids = {int((run.folder / f"node-{node}.pid").read_text()) for node in range(2)}
    run.process.kill()
    run.process.wait()
    assert set(run.left_behind()) == pids


def test_a_run_ends_with_whoever_has_started_it(tmp_path: Path) -> None:
    started = f"""
from pathlib import Path
from benchmarks.disturbing import DisturbedRun
print(DisturbedRun.start(["sleep", "600"], Path({str(tmp_path / "run")!r})).process.pid, flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", started], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.kill()
    process.communicate()
    try:
        wait_for(lambda: not alive(pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_timeline_is_followed_line_by_line(run: DisturbedRun) -> None:
    def add(text: str) -> None:
        with (run.folder / "timeline.jsonl").open("a") as file:
            file.write(text)

    line = json.dumps({"iteration": 0, "node": 0, "task": "F0", "start_s": 0.0, "end_s": 1.0})
    run.look()
    assert (run.newest, run.ended) == (-1, {})
    add(line[:20])
    run.look()
    assert run.newest == -1
    add(line[20:] + "\n" + line.replace("0,", "1,", 1))
    run.look()
    first = run.ended[0]
    assert run.newest == 0
    add("\n" + line + "\n")
    time.sleep(0.01)
    run.look()
    assert (run.newest, run.ended[0]) == (1, first)
    assert run.ended[1] > first


def test_last_words_are_without_the_bar(run: DisturbedRun) -> None:
    assert run.last_words() == "at work"


def test_a_node_that_cuts_its_connections_is_not_lost(tmp_path: Path) -> None:
    make_workplace(tmp_path)
    folder = tmp_path / "runs" / "cut"
    what = ["0", "6", "ca-partial", "2", f"{tmp_path}/small.yaml", "iterations=100000", "name=cut"]
    run = DisturbedRun.start([sys.executable, "-m", "benchmarks.cutting", "run", *what], folder)
    try:
        wait_for(lambda: run.process.poll() is not None or run.has_begun(6))
        before = sockets(run, 3)
        assert run.signal(3, signal.SIGUSR2)
        wait_for(lambda: len(before - sockets(run, 3)) >= 3)
        run.look()
        newest = run.newest
        wait_for(lambda: (run.look(), run.newest >= newest + 3)[1])
        run.process.terminate()
        assert run.process.wait(60) == 128 + signal.SIGTERM, run.last_words()
        assert run.left_behind() == []
        assert read_summary(folder).nodes_lost == 0
    finally:
        run.kill()


def sockets(run: DisturbedRun, node: int) -> set[str]:
    """The sockets that a node's process has."""
    pid = int((run.folder / f"node-{node}.pid").read_text())
    found = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        # It may be closed by now.
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return {link for link in found if link.startswith("socket:")}


def test_runs_whose_names_have_dots_print_apart() -> None:
    assert output_of(Path("runs/ours-0.5-1")) == Path("runs/ours-0.5-1.out")
