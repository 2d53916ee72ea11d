"""Lines of docs/machines.md that a scheduler's variables fill in: what run.sh is given then."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skippipe.cli import run
from skippipe.cli.hosting import FIRST_PORT, PATIENCE_SECONDS
from skippipe.cli.invitation import Invitation
from skippipe.cli.invited import PORT_STEP
from skippipe.cli.prepare import config_from_arguments
from skippipe.peers import check_reachable
from skippipe.runtime.offer import MOST_FILE_BYTES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "machines.md").read_text()
NODES = 20
TOOLS = {
    "scontrol": 'test "$*" = "show hostnames gpu[07-08]" && printf "gpu07\\ngpu08\\n"',
    "getent": 'test "$1" = ahostsv4 && printf "10.0.0.7      STREAM %s\\n10.0.0.7      DGRAM\\n" "$2"',
    "hostname": 'test "$*" = -I && echo "10.0.0.8 172.17.0.1 "',
}
"""What a cluster's tools would say."""


def script() -> str:
    """The lines that stand under Slurm, torchrun, to be called train.sh."""
    (block,) = re.findall(r"^## Slurm, torchrun\n.*?```bash\n(.*?)```", PAGE, re.S | re.M)
    assert "./run.sh" in block
    return str(block)


def test_the_page_says_what_an_invitation_sets() -> None:
    assert f"Tokens of more than {MOST_FILE_BYTES >> 20} MiB don't travel" in PAGE
    rows = {cells[1].strip(" `"): cells[2:4] for line in PAGE.splitlines() if len(cells := line.split("|")) == 5}
    assert rows["peers.first_port"][0].strip() == str(FIRST_PORT)
    assert f"the first of {FIRST_PORT}, {FIRST_PORT + PORT_STEP}, .. whose" in rows["peers.first_port"][1]
    assert rows["peers.connect_seconds"][0].strip().startswith(f"{PATIENCE_SECONDS:.0f}:")
    (shown,) = re.findall(r"^\./run.sh 10 20 ca-partial 8 --join (skippipe://\S+)$", PAGE, re.M)
    assert Invitation.parse(shown).shown == shown


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with train.sh, a run.sh that writes down its arguments, and the tools."""
    (tmp_path / "tools").mkdir()
    written = 'printf "%s\\n" "$@" > "arguments-${RANK:-$SLURM_PROCID}"'
    for name, text in {"train.sh": script(), "run.sh": written, **{f"tools/{n}": t for n, t in TOOLS.items()}}.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\nset -eu\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def taken(place: Path, rank: int) -> tuple[range, argparse.Namespace]:
    """The nodes of a task, and its arguments as the command takes them, which names what is wrong."""
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    arguments = parser.parse_intermixed_args((place / f"arguments-{rank}").read_text().splitlines())
    return range(int(arguments.first), int(arguments.last)), arguments


def check(place: Path, tasks: int, master: str) -> None:
    """All nodes are started once, and find the others at the first task's machine."""
    every: list[int] = []
    for rank in range(tasks):
        local, arguments = taken(place, rank)
        every += local
        assert abs(len(local) - NODES / tasks) < 1
        assert (arguments.setting, arguments.samples) == ("ca-partial", "8")
        config = config_from_arguments(arguments.overrides)
        check_reachable(config.peers, NODES, local)
        peers = config.peers
        assert (peers.host, peers.first_port, peers.bootstrap) == ("10.0.0.8", 4000, (f"{master}:4000",))
        assert (config.name, peers.secret_file) == ("mine", "secret")
    assert every == list(range(NODES))


def task(place: Path, **variables: object) -> None:
    """Run one task of a job."""
    environment = {"PATH": f"{place}/tools:{os.environ['PATH']}", **{name: str(v) for name, v in variables.items()}}
    subprocess.run(["./train.sh"], cwd=place, env=environment, check=True)


@pytest.mark.parametrize("tasks", [1, 2, 3, 7, 20])
def test_slurms_variables(place: Path, tasks: int) -> None:
    for rank in range(tasks):
        task(place, SLURM_PROCID=rank, SLURM_NTASKS=tasks, SLURM_JOB_NODELIST="gpu[07-08]")
    check(place, tasks, "10.0.0.7")


@pytest.mark.parametrize("tasks", [2, 3])
def test_torchruns_variables_win_over_slurms(place: Path, tasks: int) -> None:
    slurm = {"SLURM_PROCID": 0, "SLURM_NTASKS": 1, "SLURM_JOB_NODELIST": "elsewhere"}
    for rank in range(tasks):
        task(place, RANK=rank, WORLD_SIZE=tasks, MASTER_ADDR="gpu07", **slurm)
    check(place, tasks, "10.0.0.7")


def test_torchrun_itself_sets_them(place: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    environment = {**os.environ, "PATH": f"{place}/tools:{os.environ['PATH']}"}
    subprocess.run([*torchrun, "./train.sh"], cwd=place, env=environment, check=True, capture_output=True)
    check(place, 2, "10.0.0.7")
