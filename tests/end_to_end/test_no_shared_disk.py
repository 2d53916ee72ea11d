"""Machines that share no disk: each keeps the stages that it saved, and a run goes on from them wherever they lie."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skippipe.__main__ import main
from skippipe.model.checkpoint import done_iterations, find_latest
from skippipe.model.parts import parts_in
from skippipe.report.run_folder import process_ids, read_config
from skippipe.runtime.processes import DIVERGED_EXIT
from skippipe.transport.fetching import PART_BYTES
from tests.cases import drives
from tests.data.conftest import write_dataset
from tests.end_to_end.conftest import SECONDS, Start, free_ports, wait_for
from tests.end_to_end.timing import Timing
from tests.faults import Fault

SECRET = {"SKIPPIPE_SECRET": "a secret that all machines know"}
FIRST = [(0, 3), (3, 6)]
"""Nodes of the machines that train first; they save stages 0 and 1, and stage 2. Both have a replica of stage 1."""
Machine = tuple[int, int, Path, list[str]]
"""First node, one past the last, its own folder for runs, and what else it is told."""


def start_all(
    start: Start, workplace: Path, machines: list[Machine], *fields: str, patched: tuple[str, ...] = ()
) -> list[subprocess.Popen[str]]:
    """Start a run of several machines."""
    port = free_ports(6)
    common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}", *fields]
    common.append(f'peers.bootstrap=["127.0.0.1:{port}"]')
    return [
        start(str(first), str(last), *common, f"runs={runs}", *own, patched=patched, **SECRET)
        for first, last, runs, own in machines
    ]


def finish(runs: list[subprocess.Popen[str]], code: int = 0) -> list[tuple[str, str]]:
    """Output and errors of all machines, once they have ended."""
    ended = [run.communicate(timeout=SECONDS) for run in runs]
    assert [run.returncode for run in runs] == [code] * len(runs), ended
    return ended


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["iteration"]: line["loss"] for line in lines}


def train_and_stop(start: Start, workplace: Path, folders: list[Path], *fields: str) -> int:
    """A run on two machines, one of which is told to stop; how many iterations were done."""
    machines: list[Machine] = [(*nodes, folder, []) for nodes, folder in zip(FIRST, folders, strict=True)]
    runs = start_all(start, workplace, machines, "name=first", "iterations=100000", *fields)
    wait_for(lambda: all((folder / "first" / "metrics.jsonl").exists() for folder in folders))
    runs[1].send_signal(signal.SIGTERM)
    for (_, errors), folder in zip(finish(runs, 128 + signal.SIGTERM), folders, strict=True):
        assert f"go on with --resume {folder / 'first'} on every machine" in errors
    parts = [parts_in(folder / "first") for folder in folders]
    assert [part.stages for part, *_ in parts] == [(0, 1), (2,)]
    done = {done_iterations(part.folder) for part, *_ in parts}
    assert len(done) == 1
    return done.pop()  # type: ignore[return-value]


@pytest.mark.parametrize(("sync", "width"), [("fp32", 256), ("int8", 64)])
def test_a_run_goes_on_wherever_its_stages_lie(
    start: Start, workplace: Path, tmp_path: Path, sync: str, width: int
) -> None:
    one, other, new = (tmp_path / name for name in ("one", "other", "new"))
    # Files of the wider model travel in several parts. A lone node would round otherwise with two threads.
    fields = ["checkpoint_every=100000", f"compression.sync={sync}", f"model.d_model={width}", "threads=1"]
    # In real time the model must be the schedule's own.
    fields += (Timing.REAL if width == 64 else Timing.EMULATED).fields
    done = train_and_stop(start, workplace, [one, other], *fields)
    fields += [f"iterations={done + 2}"]
    alone = ["0", "6", "ca-partial", "2", f"{workplace}/small.yaml", f"runs={tmp_path}", "name=unbroken", *fields]
    finish([start(*alone)])
    expected = {number: loss for number, loss in losses(tmp_path / "unbroken").items() if number >= done}
    assert len(expected) == 2
    # Each machine has what another one needs, and one comes with nothing.
    machines: list[Machine] = [
        (0, 3, other, ["--resume", str(other / "first")]),
        (3, 5, new, ["--resume", str(new / "first")]),
        (5, 6, one, ["--resume", str(one / "first" / "checkpoints" / f"iteration-{done:06d}")]),
    ]
    ended = finish(start_all(start, workplace, machines, "name=second", *fields))
    for (_, _, folder, _), (output, errors) in zip(machines, ended, strict=True):
        assert losses(folder / "second") == expected
        assert f"going on from {folder}/first/checkpoints/iteration-{done:06d}; " in output + errors
    stages = {folder: parts_in(folder / "first")[0].stages for folder in (one, other, new)}
    assert stages == {one: (0, 1, 2), other: (0, 1, 2), new: (1, 2)}
    file = one / "first" / "checkpoints" / f"iteration-{done:06d}" / "stage-2.safetensors"
    assert (file.stat().st_size > 2 * PART_BYTES) == (width == 256)
    if sync == "int8":
        logs = [log.read_text() for folder in (one, other, new) for log in (folder / "second").glob("node-*.log")]
        assert len(logs) == 6
        assert not any("begins with nothing left out" in log for log in logs)


def test_a_stream_goes_on_where_all_had_read_it_to(start: Start, workplace: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_dataset(tmp_path / "set", files=5, documents=8, words=10)
    fields = ["data.source=hub", f"data.hub={tmp_path}/set", "data.vocabulary=350", "checkpoint_every=100000"]
    done = train_and_stop(start, workplace, [one, other], *fields, "threads=1")
    fields += [f"iterations={done + 2}", "threads=1"]
    alone = ["0", "6", "ca-partial", "2", f"{workplace}/small.yaml", f"runs={tmp_path}", "name=unbroken", *fields]
    finish([start(*alone)])
    expected = {number: loss for number, loss in losses(tmp_path / "unbroken").items() if number >= done}
    machines: list[Machine] = [
        (*nodes, folder, ["--resume", str(folder / "first")]) for nodes, folder in zip(FIRST, (other, one), strict=True)
    ]
    for (_, errors), folder in zip(
        finish(start_all(start, workplace, machines, "name=second", *fields, *Timing.REAL.fields)),
        (other, one),
        strict=True,
    ):
        assert losses(folder / "second") == expected
        assert "warning" not in errors


def test_a_node_joins_a_run_that_was_resumed_over_machines_with_the_same_line(
    start: Start, workplace: Path, tmp_path: Path
) -> None:
    one, other, new = (tmp_path / name for name in ("one", "other", "new"))
    port = free_ports(6)
    done = train_and_stop(start, workplace, [one, other])
    common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}", "name=second"]
    common += [f'peers.bootstrap=["127.0.0.1:{port}"]', "peers.restart=0", "emulation.time_scale=0.5"]
    common += [f"iterations={done + 40}", "peers.replan_seconds=0"]

    def machine(first: int, last: int, runs: Path, *more: str) -> subprocess.Popen[str]:
        return start(str(first), str(last), *common, f"runs={runs}", *more, **SECRET)

    runs = [machine(0, 2, one, "--resume", str(one / "first")), machine(2, 6, other, "--resume", str(other / "first"))]
    wait_for(lambda: (one / "second" / "metrics.jsonl").exists())
    os.kill(process_ids(other / "second")[5], signal.SIGKILL)
    wait_for(lambda: len((one / "second" / "views.jsonl").read_text().splitlines()) > 1)
    # Whoever forgets that the run goes on from a checkpoint is told so.
    wrong = machine(5, 6, new, "--join", "peers.connect_seconds=20")
    _, errors = wrong.communicate(timeout=SECONDS)
    assert wrong.returncode == 1
    assert "it differs in: the iteration to begin with (0 here)" in errors
    joins = machine(5, 6, new, "--join", "--resume", str(new / "first"))
    ended = finish([*runs, joins])
    assert "node 5 of another launcher joins" in ended[0][1]
    expected = losses(one / "second")
    assert min(expected) == done
    joined = losses(new / "second")
    assert min(joined) > done
    assert joined == {number: loss for number, loss in expected.items() if number in joined}
    # It needed nothing of the checkpoint.
    assert not (new / "first").exists()


@drives(Fault.STAGE_ON_NO_DISK)
def test_without_a_stage_all_machines_say_which_and_nothing_is_left_running(
    fault: Fault, start: Start, workplace: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    done = train_and_stop(start, workplace, folders)
    (folders[0] / "first" / "checkpoints" / f"iteration-{done:06d}" / "stage-1.safetensors").unlink()
    machines: list[Machine] = [
        (*nodes, folder, ["--resume", str(folder / "first")]) for nodes, folder in zip(FIRST, folders, strict=True)
    ]
    # The others must hear it from a slow node before its machine's launcher tells them anything.
    runs = start_all(start, workplace, machines, "name=second", "iterations=100000", patched=("chained", "1"))
    for _, errors in finish(runs, 2):
        assert [line for line in errors.splitlines() if "error" in line] == [fault.line.format(done)]
        assert "Traceback" not in errors
    for _, errors in finish(start_all(start, workplace, [machines[0], (3, 6, folders[1], [])], "name=third"), 1):
        assert "it differs in: the iteration to begin with" in errors


@drives(Fault.NEVER_FINITE)
def test_weights_that_give_no_numbers_are_set_aside_on_every_disk(
    fault: Fault, start: Start, workplace: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    machines: list[Machine] = [(*nodes, folder, []) for nodes, folder in zip(FIRST, folders, strict=True)]
    fields = ["checkpoint_every=1", "iterations=100", "optimizer.learning_rate=1e9", "optimizer.warmup_iterations=0"]
    fields += Timing.REAL.fields
    runs = start_all(start, workplace, machines, "name=first", *fields, "optimizer.dropped_in_a_row=2")
    for _, errors in finish(runs, DIVERGED_EXIT):
        assert fault.line in errors
    kept = [sorted(entry.name for entry in (folder / "first" / "checkpoints").iterdir()) for folder in folders]
    assert kept[0] == kept[1]
    aside = [name for name in kept[0] if name.startswith("not-finite-")]
    good = [name for name in kept[0] if name.startswith("iteration-")]
    assert aside
    assert all(name.removeprefix("iteration-") < min(aside).removeprefix("not-finite-") for name in good)


def test_one_machine_serves_what_it_saved_and_the_other_gathers_a_whole_checkpoint(
    start: Start, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one" / "first", tmp_path / "other" / "first"
    done = train_and_stop(start, workplace, [one.parent, other.parent])
    assert main(["export", str(other), "--out", str(tmp_path / "exported")]) == 2
    assert f"skippipe checkpoints {other} --gather" in capsys.readouterr().err
    command = [sys.executable, "-m", "skippipe", "checkpoints", str(one), "--serve"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, **SECRET}}
    serves: subprocess.Popen[str] = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    try:
        assert serves.stdout is not None
        said = serves.stdout.readline()
        # Where the run's nodes met, which its configuration tells.
        (address,) = read_config(other).peers.bootstrap
        assert said.startswith(f"serving at {address} until Ctrl-C")
        monkeypatch.setenv(*next(iter(SECRET.items())))
        assert main(["checkpoints", str(other), "--gather"]) == 0
    finally:
        serves.send_signal(signal.SIGINT)
        output, errors = serves.communicate(timeout=SECONDS)
    assert serves.returncode == 128 + signal.SIGINT
    assert errors == "stopped by SIGINT\n"
    assert "stage-0.safetensors, " in output
    assert find_latest(other).meta.iteration == done
    assert main(["export", str(other), "--out", str(tmp_path / "exported")]) == 0
