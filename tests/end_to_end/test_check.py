"""The doctor on two machines, and beside a run that waits for the machine which it is started on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skippipe.report.run_folder import process_ids
from tests.end_to_end.conftest import SECONDS, Start, free_ports, wait_for

Check = Callable[..., "subprocess.Popen[str]"]
SECRET = {"SKIPPIPE_SECRET": "a secret that both machines know"}


@pytest.fixture
def check(workplace: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the doctor on a machine with nodes `first` to `last` - 1; what is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start_check(first: int, last: int, port: int, *arguments: str) -> subprocess.Popen[str]:
        command = ["check", f"{workplace}/small.yaml", f"peers.first_port={port}", *arguments]
        command += [
            f'peers.bootstrap=["127.0.0.1:{port}"]',
            "--nodes",
            str(first),
            str(last),
            "--setting",
            "ca-partial",
        ]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, **SECRET}}
        started.append(subprocess.Popen([sys.executable, "-m", "skippipe", *command], text=True, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield start_check
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, errors = process.communicate(timeout=SECONDS)
    assert "Traceback" not in errors, errors
    return process.returncode, output


def test_machines_that_check_at_once_reach_one_another(check: Check) -> None:
    port = free_ports(6)
    wait = ["--wait", str(SECONDS)]
    checks = [check(*nodes, port, *wait) for nodes in ((0, 2), (2, 3), (3, 6))]
    for process, others in zip(checks, ((2, 3), (0, 3), (0, 2)), strict=True):
        code, output = finish(process)
        assert code == 0, output
        for first in others:
            assert f":{port + first}: reached there and back, same secret, same run" in output
        assert "agrees with that of nodes" in output


@pytest.mark.parametrize("field", ["seed=0", "seed=9"])
def test_a_run_that_waits_is_found_and_goes_on_as_if_nobody_had_asked(
    start: Start, check: Check, workplace: Path, field: str
) -> None:
    port, name = free_ports(6), f"asked-{field}"
    common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}", f"name={name}"]
    common += [f'peers.bootstrap=["127.0.0.1:{port}"]', "iterations=1", "peers.connect_seconds=100"]
    waits = start("0", "2", *common, **SECRET)
    folder = workplace / "runs" / name
    wait_for(lambda: len(process_ids(folder)) == 2)
    asked = [field, "iterations=1", "peers.connect_seconds=100", "--wait", str(SECONDS)]
    code, output = finish(check(2, 6, port, *asked))
    if field == "seed=0":
        assert (code, f"127.0.0.1:{port}" in output) == (0, True), output
        assert "the run is there: reached, same secret, same fields" in output
    else:
        assert code == 2
        assert "a run of something else; it differs in: seed (9 here)" in output
    assert waits.poll() is None
    comes = start("2", "6", *common, **SECRET)
    for process in (waits, comes):
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
    assert json.loads((folder / "summary.json").read_text())["iterations"] == 1
