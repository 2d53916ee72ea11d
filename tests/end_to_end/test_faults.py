"""What a run does when a node, machine or link fails: it goes on, or ends everywhere with a line that says why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest

from tests.end_to_end.conftest import SECONDS, Start, alive, free_ports, node_pids, wait_for

END_SECONDS = 30
FOREVER = "iterations=100000"
SECRET = {"SKIPPIPE_SECRET": "a secret that both machines know"}


class Fault(Enum):
    """Who is killed on one machine."""

    BOOTSTRAP_KILLED = 0
    ORIGIN_KILLED = 1
    RELAY_KILLED = 3


def iterations_done(folder: Path) -> int:
    """Lines in the run's metrics."""
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("fault", Fault)
def test_a_killed_node_ends_the_run_and_is_named(start: Start, workplace: Path, fault: Fault) -> None:
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", f"name={fault.name}", FOREVER)
    folder = workplace / "runs" / fault.name
    wait_for(lambda: iterations_done(folder) > 0)
    pids = node_pids(folder)
    os.kill(pids[fault.value], signal.SIGKILL)
    began = time.monotonic()
    _, errors = process.communicate(timeout=SECONDS)
    assert time.monotonic() - began < 5
    assert process.returncode == 1
    assert f"error: node {fault.value} was killed by SIGKILL" in errors
    assert f"node {fault.value} ready" in errors
    assert not any(alive(pid) for pid in pids.values())


def test_a_node_that_stops_for_20_s_delays_the_run(start: Start, workplace: Path) -> None:
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=paused", FOREVER)
    folder = workplace / "runs" / "paused"
    wait_for(lambda: iterations_done(folder) > 0)
    pid = node_pids(folder)[2]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(20)
    before = iterations_done(folder)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: iterations_done(folder) > before + 3)
    assert process.poll() is None


def two_machines(workplace: Path, hosts: tuple[str, str]) -> list[list[str]]:
    """Arguments of a run whose nodes 0 and 1 are on one host, 2 to 5 on another."""
    port = free_ports(7)
    common = [
        "ca-partial", "2", f"{workplace}/small.yaml", FOREVER, f"peers.first_port={port}",
        f'peers.bootstrap=["{hosts[0]}:{port}"]', f"peers.rendezvous={hosts[0]}:{port + 6}",
    ]  # fmt: skip
    return [
        ["0", "2", *common, f"peers.host={hosts[0]}"],
        ["2", "6", *common, f"peers.host={hosts[1]}"],
    ]


def test_a_lost_machine_ends_the_run_on_the_other(start: Start, workplace: Path) -> None:
    arguments = two_machines(workplace, ("127.0.0.1", "127.0.0.1"))
    stays = start(*arguments[0], "name=stays", **SECRET)
    goes = start(*arguments[1], "name=goes", **SECRET)
    folder = workplace / "runs" / "stays"
    wait_for(lambda: iterations_done(folder) > 0)
    os.killpg(goes.pid, signal.SIGKILL)
    began = time.monotonic()
    _, errors = stays.communicate(timeout=SECONDS)
    assert time.monotonic() - began < END_SECONDS
    assert stays.returncode == 1
    assert "can't be reached" in errors
    assert not any(alive(pid) for pid in node_pids(folder).values())


@pytest.mark.parametrize("lost", [1, 5])
def test_both_machines_name_the_node_that_was_killed(start: Start, workplace: Path, lost: int) -> None:
    arguments = two_machines(workplace, ("127.0.0.1", "127.0.0.1"))
    runs = [start(*arguments[i], f"name={name}-{lost}", **SECRET) for i, name in enumerate(("here", "there"))]
    folders = [workplace / "runs" / f"{name}-{lost}" for name in ("here", "there")]
    wait_for(lambda: iterations_done(folders[0]) > 0)
    own = 0 if lost < 2 else 1
    os.kill(node_pids(folders[own])[lost], signal.SIGKILL)
    began = time.monotonic()
    errors = [run.communicate(timeout=SECONDS)[1] for run in runs]
    assert time.monotonic() - began < END_SECONDS
    assert f"error: node {lost} was killed by SIGKILL" in errors[own]
    assert f"error: node {lost} failed on its machine, says node" in errors[1 - own]
    assert all("no checkpoint was made" in text for text in errors)
    assert not any(alive(pid) for folder in folders for pid in node_pids(folder).values())


def network_namespaces_permitted() -> bool:
    """Whether this process may make network namespaces."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    made = subprocess.run(["ip", "netns", "add", "skippipe-probe"], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", "skippipe-probe"], check=True)
    return made


def ip(*arguments: str) -> None:
    """Run the ip command."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces, 10.77.0.1 and 10.77.0.2, joined by a cable."""
    if not network_namespaces_permitted():
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


@pytest.mark.parametrize("restored", [True, False], ids=["cut for 5 s", "cut for good"])
def test_a_cut_cable(start: Start, workplace: Path, hosts: tuple[str, str], restored: bool) -> None:
    arguments = two_machines(workplace, ("10.77.0.1", "10.77.0.2"))
    names = [f"{side}-{'restored' if restored else 'cut'}" for side in ("near", "far")]
    runs = [
        start(*arguments[i], f"name={names[i]}", inside=hosts[i], **SECRET) for i in range(2)
    ]
    folder = workplace / "runs" / names[0]
    wait_for(lambda: iterations_done(folder) > 0)
    ip("-n", hosts[0], "link", "set", "cable", "down")
    if restored:
        time.sleep(5)
        before = iterations_done(folder)
        ip("-n", hosts[0], "link", "set", "cable", "up")
        wait_for(lambda: iterations_done(folder) > before + 3)
        assert all(run.poll() is None for run in runs)
        return
    began = time.monotonic()
    for run in runs:
        _, errors = run.communicate(timeout=SECONDS)
        assert run.returncode == 1
        assert "can't be reached" in errors
    assert time.monotonic() - began < END_SECONDS
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines
