"""What a run does when a node, machine or link fails: it goes on, or ends everywhere with a line that says why."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from enum import Enum
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
from skippipe.schedule import Schedule
from tests.end_to_end.conftest import SECONDS, Start, alive, can_make_namespaces, free_ports, ports_are_free, wait_for
from tests.end_to_end.exactness import TOLERANCE

END_SECONDS = 60
PORTS = 6
FOREVER = "iterations=100000"
NO_MAJORITY = "only [23] of 6 nodes can be reached, no majority"
"""Of two nodes: one may find out about one of the others a little later."""
SECRET = {"SKIPPIPE_SECRET": "a secret that both machines know"}


class Fault(Enum):
    """What happens to a run of six nodes."""

    BOOTSTRAP_KILLED = "node 0"
    ORIGIN_KILLED = "node 1"
    RELAY_KILLED = "node 3"
    STAGE_KILLED = "nodes 2 and 3"
    ORIGINS_KILLED = "nodes 0 and 1"
    STOPPED_FOR_20_S = "node 2"
    LINK_CUT_FOR_5_S = "the cable between two machines, for a while"
    LINK_CUT = "the cable between two machines"

    @property
    def goes_on(self) -> bool:
        """Whether the run survives."""
        return self not in (Fault.ORIGINS_KILLED, Fault.LINK_CUT)

    @property
    def cuts(self) -> bool:
        """Whether it takes two machines."""
        return self in (Fault.LINK_CUT_FOR_5_S, Fault.LINK_CUT)

    @property
    def complaints(self) -> tuple[str, ...]:
        """What each launcher must say."""
        if self.cuts:
            # Both replicas of stage 0 are on the smaller side.
            return NO_MAJORITY, "no living node holds stage 0"
        return ("no living node holds stage 0",)

    def inflict(self, pids: dict[int, int], cable: str | None) -> None:
        """Do it; what does not last is over at the end. `cable` is the namespace that one end of it is in."""
        if self.cuts:
            assert cable is not None
            ip("-n", cable, "link", "set", "cable", "down")
            if self.goes_on:
                time.sleep(5)
                ip("-n", cable, "link", "set", "cable", "up")
            return
        stops = self is Fault.STOPPED_FOR_20_S
        for node in map(int, re.findall("[0-9]+", self.value)):
            os.kill(pids[node], signal.SIGSTOP if stops else signal.SIGKILL)
            if stops:
                time.sleep(20)
                os.kill(pids[node], signal.SIGCONT)


def iterations_done(folder: Path) -> int:
    """Lines in the run's metrics."""
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("fault", Fault)
def test_a_fault(fault: Fault, start: Start, workplace: Path, request: pytest.FixtureRequest) -> None:
    hosts: tuple[str, str] | None = request.getfixturevalue("hosts") if fault.cuts else None
    first_port = free_ports(PORTS)
    patience = ["peers.silence_seconds=8"] if fault is Fault.LINK_CUT else []
    if hosts:
        arguments = two_machines(workplace, ("10.77.0.1", "10.77.0.2"), first_port)
    else:
        settings = ("ca-partial", "2", f"{workplace}/small.yaml", FOREVER, f"peers.first_port={first_port}")
        arguments = [["0", "6", *settings]]
    folders = [workplace / "runs" / f"{fault.name}-{machine}" for machine in range(len(arguments))]
    runs = [
        start(*arguments[i], f"name={folders[i].name}", *patience, inside=hosts[i] if hosts else None, **SECRET)
        for i in range(len(arguments))
    ]
    wait_for(lambda: iterations_done(folders[0]) > 0)
    pids = {node: pid for folder in folders for node, pid in process_ids(folder).items()}
    fault.inflict(pids, hosts[0] if hosts else None)
    before, began = iterations_done(folders[0]), time.monotonic()
    if fault.goes_on:
        wait_for(lambda: iterations_done(folders[0]) > before + 3)
        assert all(run.poll() is None for run in runs)
        return
    for run, complaint in zip(runs, fault.complaints, strict=True):
        _, errors = run.communicate(timeout=SECONDS)
        assert run.returncode == 1
        assert re.search(complaint, errors)
        assert re.search("no (complete )?checkpoint|if other machines have the rest", errors)
    assert time.monotonic() - began < END_SECONDS
    assert not any(alive(pid) for pid in pids.values())
    assert ports_are_free(first_port, PORTS)


def two_machines(workplace: Path, hosts: tuple[str, str], port: int) -> list[list[str]]:
    """Arguments of a run whose nodes 0 and 1 are on one host, 2 to 5 on another; it takes PORTS ports."""
    meeting = [f'peers.bootstrap=["{hosts[0]}:{port}"]']
    common = ["ca-partial", "2", f"{workplace}/small.yaml", FOREVER, f"peers.first_port={port}", *meeting]
    return [
        ["0", "2", *common, f"peers.host={hosts[0]}"],
        ["2", "6", *common, f"peers.host={hosts[1]}"],
    ]


def test_a_lost_machine_ends_the_run_on_the_other(start: Start, workplace: Path) -> None:
    arguments = two_machines(workplace, ("127.0.0.1", "127.0.0.1"), free_ports(PORTS))
    fields = ["peers.silence_seconds=6", "checkpoint_every=100000"]
    stays = start(*arguments[0], "name=stays", *fields, **SECRET)
    goes = start(*arguments[1], "name=goes", *fields, **SECRET)
    folder = workplace / "runs" / "stays"
    wait_for(lambda: iterations_done(folder) > 0)
    os.killpg(goes.pid, signal.SIGKILL)
    began = time.monotonic()
    _, errors = stays.communicate(timeout=SECONDS)
    assert time.monotonic() - began < END_SECONDS
    assert stays.returncode == 1
    assert re.search(NO_MAJORITY, errors)
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


@pytest.mark.parametrize("lost", [1, 5])
def test_both_machines_go_on_without_the_node_that_was_killed(start: Start, workplace: Path, lost: int) -> None:
    arguments = two_machines(workplace, ("127.0.0.1", "127.0.0.1"), free_ports(PORTS))
    names = [f"{name}-{lost}" for name in ("here", "there")]
    runs = [start(*arguments[i], f"name={name}", "iterations=15", **SECRET) for i, name in enumerate(names)]
    folders = [workplace / "runs" / name for name in names]
    wait_for(lambda: iterations_done(folders[0]) > 0)
    own = 0 if lost < 2 else 1
    os.kill(process_ids(folders[own])[lost], signal.SIGKILL)
    errors = [run.communicate(timeout=SECONDS)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert f"node {lost} (killed by SIGKILL) lost in iteration" in errors[own]
    assert f"node {lost} lost in iteration" in errors[1 - own]
    losses = [[line.loss for line in read_metrics(folder)] for folder in folders]
    assert len(losses[0]) == 15
    assert losses[0] == losses[1]


def ip(*arguments: str) -> None:
    """Run the ip command."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces, 10.77.0.1 and 10.77.0.2, joined by a cable."""
    if not can_make_namespaces():
        pytest.skip("needs root and iproute2 to make network namespaces")
    names = (f"skippipe-a-{os.getpid()}", f"skippipe-b-{os.getpid()}")
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
