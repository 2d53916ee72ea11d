"""What a run does when a node, machine or link fails: it goes on, or ends everywhere with a line that says why."""

from __future__ import annotations

import os
import re
import shlex
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.fields import load_config
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.report.metrics import read_metrics
from skippipe.report.run_folder import process_ids
from skippipe.report.views import read_views
from skippipe.schedule import Schedule
from tests.cases import Layer, drives
from tests.end_to_end.conftest import SECONDS, Start, alive, free_ports, ip, ports_are_free, wait_for
from tests.end_to_end.exactness import LONG_TOLERANCE, TOLERANCE, check_exact
from tests.end_to_end.timing import Timing
from tests.faults import Fault

END_SECONDS = 60
PORTS = 6
FOREVER = "iterations=100000"
NO_MAJORITY = "only [23] of 6 nodes can be reached, no majority"
"""Of two nodes: one may find out about one of the others a little later."""
SECRET = {"SKIPPIPE_SECRET": "a secret that both machines know"}


CUTS = (Fault.LINK_CUT_FOR_5_S, Fault.LINK_CUT)
"""Those that take two machines."""
STOPS = {Fault.STOPPED_FOR_8_S: 8, Fault.ALL_STOPPED_FOR_10_S: 10}
"""Seconds: of one node longer than anybody waits for a connection, of all longer than each may be silent."""
REAL = (Fault.RELAY_KILLED, Fault.ORIGINS_KILLED)
"""Those that come in real time."""
FEWER = (Fault.CUT_OFF, Fault.MACHINE_LOST, Fault.KILLED_WITH_NODE_0, Fault.KILLED_FAR_FROM_NODE_0)
"""Those with a test of their own, which looks closer."""


def inflict(fault: Fault, pids: dict[int, int], cable: str | None) -> None:
    """Do it; what does not last is over at the end. `cable` is the namespace that one end of it is in."""
    if fault in CUTS:
        assert cable is not None
        ip("-n", cable, "link", "set", "cable", "down")
        if fault.goes_on:
            time.sleep(5)
            ip("-n", cable, "link", "set", "cable", "up")
        return
    nodes = [pids[node] for node in map(int, re.findall("[0-9]+", fault.what))]
    for pid in nodes:
        os.kill(pid, signal.SIGSTOP if fault in STOPS else signal.SIGKILL)
    if fault in STOPS:
        time.sleep(STOPS[fault])
        for pid in nodes:
            os.kill(pid, signal.SIGCONT)


def iterations_done(folder: Path) -> int:
    """Lines in the run's metrics."""
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@drives(*(fault for fault in Fault.at(Layer.RUN) if fault not in FEWER))
def test_a_fault(fault: Fault, start: Start, workplace: Path, request: pytest.FixtureRequest) -> None:
    hosts: tuple[str, str] | None = request.getfixturevalue("hosts") if fault in CUTS else None
    first_port = free_ports(PORTS)
    fields = list((Timing.REAL if fault in REAL else Timing.EMULATED).fields)
    fields += ["peers.silence_seconds=6"] if fault in (Fault.LINK_CUT, Fault.ALL_STOPPED_FOR_10_S) else []
    if hosts:
        arguments = two_machines(workplace, ("10.77.0.1", "10.77.0.2"), first_port)
    else:
        settings = ("ca-partial", "2", f"{workplace}/small.yaml", FOREVER, f"peers.first_port={first_port}")
        arguments = [["0", "6", *settings]]
    folders = [workplace / "runs" / f"{fault.name}-{machine}" for machine in range(len(arguments))]
    runs = [
        start(
            *arguments[i],
            f"name={folders[i].name}",
            *fields,
            inside=hosts[i] if hosts else None,
            **SECRET,
        )
        for i in range(len(arguments))
    ]
    wait_for(lambda: iterations_done(folders[0]) > 0)
    pids = {node: pid for folder in folders for node, pid in process_ids(folder).items()}
    inflict(fault, pids, hosts[0] if hosts else None)
    before, began = iterations_done(folders[0]), time.monotonic()
    if fault.goes_on:
        wait_for(lambda: iterations_done(folders[0]) > before + 3)
        assert all(run.poll() is None for run in runs)
        if fault is Fault.ALL_STOPPED_FOR_10_S:
            # Nobody takes for the others' silence what was everybody's.
            assert len((folders[0] / "views.jsonl").read_text().splitlines()) == 1
        return
    # Of a cut cable: both replicas of stage 0 are on the smaller side, which holds no majority.
    complaints = (NO_MAJORITY, fault.line) if hosts else (fault.line,)
    for run, complaint in zip(runs, complaints, strict=True):
        _, errors = run.communicate(timeout=SECONDS)
        assert run.returncode == 1
        assert re.search(complaint, errors)
        assert re.search("no (complete )?checkpoint|if other machines have the rest", errors)
    assert time.monotonic() - began < END_SECONDS
    assert not any(alive(pid) for pid in pids.values())
    assert ports_are_free(first_port, PORTS)


def two_machines(workplace: Path, hosts: tuple[str, str], port: int, first: int = 2) -> list[list[str]]:
    """Arguments of a run whose `first` nodes are on one host, the others on another; it takes PORTS ports."""
    meeting = [f'peers.bootstrap=["{hosts[0]}:{port}"]']
    common = ["ca-partial", "2", f"{workplace}/small.yaml", FOREVER, f"peers.first_port={port}", *meeting]
    return [
        ["0", str(first), *common, f"peers.host={hosts[0]}"],
        [str(first), "6", *common, f"peers.host={hosts[1]}"],
    ]


@drives(Fault.CUT_OFF)
def test_the_majority_goes_on_and_who_is_cut_off_saves_ends_and_comes_back(
    fault: Fault, start: Start, workplace: Path, hosts: tuple[str, str]
) -> None:
    fields = ["checkpoint_every=100000", "peers.silence_seconds=6", "peers.restart=0"]
    arguments = two_machines(workplace, ("10.77.0.1", "10.77.0.2"), free_ports(PORTS), first=5)
    names = [f"cut-off-{machine}" for machine in range(2)]
    runs = [start(*arguments[i], *fields, f"name={names[i]}", inside=hosts[i], **SECRET) for i in range(2)]
    majority, minority = (workplace / "runs" / name for name in names)
    wait_for(lambda: iterations_done(majority) > 0)
    ip("-n", hosts[0], "link", "set", "cable", "down")
    errors = runs[1].communicate(timeout=SECONDS)[1]
    assert runs[1].returncode == 1, errors
    # It may not have missed all of them yet.
    assert re.search("only [1-3] of 6 nodes can be reached, no majority", errors)
    before = iterations_done(minority)
    (saved,) = (minority / "checkpoints").iterdir()
    assert [file.name for file in saved.iterdir()] == ["stage-2.safetensors"]
    # The cable is there again, and so is the node, by the line that it was told.
    ip("-n", hosts[0], "link", "set", "cable", "up")
    (line,) = re.findall(r"with the same line and --join once they are in reach: \./run\.sh (.*)", errors)
    again = start(*shlex.split(line), inside=hosts[1], **SECRET)
    wait_for(lambda: read_views(majority)[-1].reason == "joined: 5" or again.poll() is not None)
    assert again.poll() is None, again.communicate()
    wait_for(lambda: iterations_done(majority) > read_views(majority)[-1].iteration)
    runs[0].send_signal(signal.SIGTERM)
    told, back = (run.communicate(timeout=SECONDS)[1] for run in (runs[0], again))
    assert [runs[0].returncode, again.returncode] == [143, 143], (told, back)
    assert fault.line in told
    assert re.search(r"node 5 back in iteration \d+ with stage 2 of node 4", back)
    assert [view.members for view in read_views(majority)] == [tuple(range(6)), tuple(range(5)), tuple(range(6))]
    done, lost = iterations_done(majority), frozenset({5})
    check_exact(workplace, majority, fields, done, lost=lost, tolerance=LONG_TOLERANCE, by_number=False)
    logs = [(folder / f"node-{node}.log").read_text() for folder, node in ((majority, 4), (minority, 5))]
    assert len({re.findall(r"weights (\w+)", log)[0] for log in logs}) == 1
    # There was one run: what the other machine has done, both have.
    losses = [[line.loss for line in read_metrics(folder)] for folder in (majority, minority)]
    assert losses[1][:before] == losses[0][:before]


@drives(Fault.MACHINE_LOST)
@pytest.mark.parametrize("timing", Timing)
def test_a_lost_machine_ends_the_run_on_the_other(fault: Fault, start: Start, workplace: Path, timing: Timing) -> None:
    arguments = two_machines(workplace, ("127.0.0.1", "127.0.0.1"), free_ports(PORTS))
    fields = ["peers.silence_seconds=6", "checkpoint_every=100000", *timing.fields]
    names = [f"{name}-{timing.name}" for name in ("stays", "goes")]
    stays, goes = (start(*own, f"name={name}", *fields, **SECRET) for own, name in zip(arguments, names, strict=True))
    folder = workplace / "runs" / names[0]
    wait_for(lambda: iterations_done(folder) > 0)
    os.killpg(goes.pid, signal.SIGKILL)
    began = time.monotonic()
    _, errors = stays.communicate(timeout=SECONDS)
    assert time.monotonic() - began < END_SECONDS
    assert stays.returncode == 1
    assert re.search(NO_MAJORITY, errors)
    assert fault.line in errors
    assert not any(alive(pid) for pid in process_ids(folder).values())
    # Of its three stages the smaller side holds the first.
    (saved,) = (folder / "checkpoints").iterdir()
    assert [file.name for file in saved.iterdir() if file.name.startswith("stage")] == ["stage-0.safetensors"]
    check_saved(workplace, saved, fields)


def check_saved(workplace: Path, saved: Path, fields: list[str]) -> None:
    """Stage 0 of a checkpoint is what one process trains in as many iterations."""
    torch.set_num_threads(1)
    config = load_config(RunConfig, workplace / "small.yaml", fields)
    plan = Schedule.load(Path(config.schedule)).settings["ca-partial"]
    reference = ReferenceTrainer(config, plan, 2, prepare(config.data))
    for iteration in range(int(saved.name.removeprefix("iteration-"))):
        reference.train_iteration(iteration)
    tensors = load_file(saved / "stage-0.safetensors")
    for name, wanted in canonical_state(reference.stages[0]).items():
        assert (tensors[name] - wanted).abs().max() < TOLERANCE * wanted.abs().max(), name


@drives(Fault.KILLED_WITH_NODE_0, Fault.KILLED_FAR_FROM_NODE_0)
def test_both_machines_go_on_without_the_node_that_was_killed(fault: Fault, start: Start, workplace: Path) -> None:
    lost = int(fault.what.removeprefix("node "))
    arguments = two_machines(workplace, ("127.0.0.1", "127.0.0.1"), free_ports(PORTS))
    names = [f"{name}-{lost}" for name in ("here", "there")]
    runs = [start(*arguments[i], f"name={name}", "iterations=15", **SECRET) for i, name in enumerate(names)]
    folders = [workplace / "runs" / name for name in names]
    wait_for(lambda: iterations_done(folders[0]) > 0)
    own = 0 if lost < 2 else 1
    os.kill(process_ids(folders[own])[lost], signal.SIGKILL)
    errors = [run.communicate(timeout=SECONDS)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert fault.line in errors[0]
    assert fault.line in errors[1]
    # Only its own launcher knows why.
    told = [re.search(r"lost in iteration \d+ \(killed by SIGKILL\): ", text) for text in errors]
    assert [match is not None for match in told] == [place == own for place in range(2)]
    losses = [[line.loss for line in read_metrics(folder)] for folder in folders]
    assert len(losses[0]) == 15
    assert losses[0] == losses[1]
