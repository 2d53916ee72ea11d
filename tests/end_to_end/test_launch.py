"""What can go wrong before and beside training gives one clear line and its exit code, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path

import pytest

from skippipe.config import RunConfig
from skippipe.data.cache import key
from skippipe.data.corpus import Corpus
from skippipe.fields import load_config
from skippipe.model.parts import parts_in
from skippipe.report.run_folder import process_ids
from tests.cases import drives
from tests.end_to_end.conftest import SECONDS, Start, alive, free_ports, wait_for
from tests.end_to_end.timing import Timing
from tests.faults import Fault

SECRET = {"SKIPPIPE_SECRET": "a secret that both machines know"}
SIX = ("0", "6", "ca-partial", "2")


class Refused(Enum):
    """What is known before the start: arguments, and what the line says."""

    NO_SUCH_DEVICE = (["device=cuda:99"], "device: 'cuda:99' can't be used here")
    NO_DEVICE = (["device=banana"], "device: 'banana' can't be used here")
    RUNS_UNWRITABLE = (["runs=/proc/nowhere"], "runs: the folder /proc/nowhere/refused can't be written")
    RUNS_A_FILE = (["runs=/etc/hostname"], "runs: the folder /etc/hostname/refused can't be written")
    CACHE_UNWRITABLE = (["data.cache=/proc/nowhere"], "data.cache: /proc/nowhere: can't be made")
    NO_MEMORY = (["model.d_model=100000", "model.heads=100"], "memory for 6 nodes: ")
    TEXT_TOO_SHORT = (["model.context=500000"], "fewer than one sequence of model.context")
    NOT_OUR_ADDRESS = (["peers.host=192.0.2.1"], "peers.host: 192.0.2.1 is no address of this machine")
    MANY_DIGITS = (["iterations=" + "1" * 5000], "iterations must be a whole number")
    HUGE = (["iterations=" + "1" * 4000], "iterations must be at most")
    NO_FOLDERS_NAME = (["name=../elsewhere"], "name must be a folder's name")
    UNKNOWN_NAME = (
        ['peers.bootstrap=["nobody.invalid:4000"]'],
        "peers.bootstrap: 'nobody.invalid' has no IPv4 address",
    )
    NO_PORT = (['peers.bootstrap=["localhost:99999"]'], 'bootstrap needs an address like "10.0.0.1:4000"')
    NO_ADVERTISED_PORT = (["peers.advertise=10.0.0.1:4000"], "advertise needs first_port")
    NO_ADVERTISED_NAME = (
        ["peers.first_port=23000", "peers.advertise=nobody.invalid"],
        "peers.advertise: 'nobody.invalid' has no IPv4 address, which peers.host is",
    )
    NO_HOST = (["peers.host=fe80::zz"], "host must be an IPv4 or IPv6 address of this machine")
    NO_ENDPOINT = (["peers.secret_file=/nowhere"], "peers.secret_file: /nowhere can't be read")


@pytest.mark.parametrize("case", Refused)
def test_what_is_known_before_the_start_is_refused_before_it(case: Refused, start: Start, workplace: Path) -> None:
    arguments, line = case.value
    process = start(*SIX, f"{workplace}/small.yaml", "name=refused", *arguments, **SECRET)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2, errors
    assert line in errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert len(errors) < 500
    assert not list((workplace / "runs" / "refused").glob("node-*"))


def test_a_child_that_fails_ends_the_imports_beside_it(tmp_path: Path) -> None:
    code = (
        "import signal\n"
        "from skippipe.cli import prepare\n"
        "from skippipe.config import RunConfig\n"
        "prepare.import_everything = lambda config: [signal.pause() for _ in iter(int, 1)]\n"
        "prepare.prepare_and_import(RunConfig(device='banana'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: device: 'banana' can't be used here")
    assert len(done.stderr.splitlines()) == 1


@drives(Fault.PORT_TAKEN)
def test_a_taken_port_is_named_with_its_field(fault: Fault, start: Start, workplace: Path) -> None:
    first = free_ports(6)
    with socket.create_server(("127.0.0.1", first + 2)):
        process = start(*SIX, f"{workplace}/small.yaml", f"peers.first_port={first}", "name=port")
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2, errors
    assert f"{fault.line}{first + 2} (Address already in use)" in errors
    assert not list((workplace / "runs" / "port").glob("node-*"))


ENDS_OF_DATA = {
    Fault.DATA_CHILD_KILLED: (signal.SIGKILL, 1),
    Fault.DATA_INTERRUPTED: (signal.SIGINT, 128 + signal.SIGINT),
    Fault.DATA_ORPHANED: (signal.SIGKILL, -signal.SIGKILL),
}
"""Which signal, and the launcher's exit code."""


@drives(*ENDS_OF_DATA)
def test_data_that_can_not_be_prepared(fault: Fault, start: Start, workplace: Path, tmp_path: Path) -> None:
    number, code = ENDS_OF_DATA[fault]
    config = load_config(RunConfig, workplace / "small.yaml", [f"data.cache={tmp_path}"])
    lock = tmp_path / f"tokenizer-{key(Corpus(config.data).fingerprint, config.data.vocabulary)}.lock"
    # The child waits for this lock for ever, so that there is time to hurt it.
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = start(*SIX, f"{workplace}/small.yaml", f"data.cache={tmp_path}", f"name=data-{fault.name}")
        wait_for(lambda: bool(children(process.pid)) and waits_for_a_lock(children(process.pid)[0]))
        child = children(process.pid)[0]
        os.kill(child if fault is Fault.DATA_CHILD_KILLED else process.pid, number)
        _, errors = process.communicate(timeout=SECONDS)
        wait_for(lambda: not alive(child))
    assert process.returncode == code, errors
    assert len(errors.strip().splitlines()) == (1 if fault.line else 0), errors
    assert fault.line in errors


def children(pid: int) -> list[int]:
    """Child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waits_for_a_lock(pid: int) -> bool:
    """Whether a process waits for a file's lock."""
    return any(f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines() if "->" in line)


@drives(Fault.CHILD_FAILS_EARLY)
def test_a_child_that_fails_early_leaves_the_clean_up_to_the_launcher(
    fault: Fault, start: Start, workplace: Path
) -> None:
    folder = workplace / "runs" / "early"
    (folder / "node-3.log").mkdir(parents=True)
    process = start(*SIX, f"{workplace}/small.yaml", "name=early")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert f"node 3: {folder}/node-3.log can't be written (Is a directory)" in errors
    assert errors.count(fault.line) == 1
    assert errors.count("error:") == 1, errors
    assert "Traceback" not in errors
    assert not any(alive(pid) for pid in process_ids(folder).values())


@drives(Fault.SECOND_CTRL_C)
def test_a_second_signal_while_stopping_is_no_error(fault: Fault, start: Start, workplace: Path) -> None:
    process = start(*SIX, f"{workplace}/small.yaml", "name=twice", "iterations=100000")
    folder = workplace / "runs" / "twice"
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    pids = process_ids(folder)
    # Again and again: one of them comes while the nodes are being stopped.
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    assert fault.line in errors
    assert "Traceback" not in errors
    assert not any(alive(pid) for pid in pids.values())


@drives(Fault.SIGTERM_TO_ONE, Fault.SIGTERM_WITHOUT_SHARED_DISK)
def test_sigterm_to_one_launcher_is_known_to_all_and_saved_is_checked(
    fault: Fault, start: Start, workplace: Path
) -> None:
    shared = fault is Fault.SIGTERM_TO_ONE
    port = free_ports(6)
    meeting = [f'peers.bootstrap=["127.0.0.1:{port}"]']
    common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}", *meeting]
    timing = Timing.EMULATED if shared else Timing.REAL
    common += ["iterations=100000", "checkpoint_every=100000", *timing.fields]
    names = ["together", "together"] if shared else ["left", "right"]
    runs: list[subprocess.Popen[str]] = [
        start("0", "2", *common, f"name={names[0]}", **SECRET),
        start("2", "6", *common, f"name={names[1]}", **SECRET),
    ]
    folders = [workplace / "runs" / name for name in names]
    wait_for(lambda: (folders[0] / "metrics.jsonl").exists() and (folders[1] / "metrics.jsonl").exists())
    runs[1].send_signal(signal.SIGTERM)
    for run, folder in zip(runs, folders, strict=True):
        _, errors = run.communicate(timeout=SECONDS)
        # Whichever of that machine's processes had heard of it when the iteration ended.
        assert re.search(rf"node [2-5]{re.escape(Fault.SIGTERM_TO_ONE.line)}", errors)
        assert fault.line in errors
        assert run.returncode == 128 + signal.SIGTERM, errors
        done = parts_in(folder)[0].meta.iteration
        assert f"saved after {done} iterations; go on with --resume {folder} on every machine" in errors
    # With a disk of its own a machine has what its nodes saved; together they have all.
    stages = [parts_in(folder)[0].stages for folder in folders]
    assert stages == ([(0, 1, 2)] * 2 if shared else [(0,), (1, 2)])


@drives(Fault.LOST_AT_THE_START)
def test_a_loss_while_starting_up_reaches_the_other_machine(fault: Fault, start: Start, workplace: Path) -> None:
    port = free_ports(6)
    # By name, too: bootstrap need not be addresses.
    meeting = [f'peers.bootstrap=["localhost:{port}"]']
    # Whoever is not told waits for this long.
    meeting += ["peers.connect_seconds=1000"]
    common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}", *meeting]
    stays = start("0", "2", *common, "name=told", **SECRET)
    folder = workplace / "runs" / "told"
    wait_for(lambda: len(process_ids(folder)) == 2)
    broken = workplace / "runs" / "broken"
    (broken / "node-5.log").mkdir(parents=True)
    goes = start("2", "6", *common, "name=broken", **SECRET)
    _, errors = goes.communicate(timeout=SECONDS)
    assert goes.returncode == 1
    assert "node 5 ended with exit code 2" in errors
    _, errors = stays.communicate(timeout=SECONDS)
    assert stays.returncode == 1
    assert fault.line in errors
    assert not any(alive(pid) for pid in process_ids(folder).values())


def test_names_serve_in_bootstrap_and_a_lone_node_takes_all_cores(start: Start, workplace: Path) -> None:
    port = free_ports(6)
    meeting = [f'peers.bootstrap=["localhost:{port}"]']
    common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}", "iterations=1", *meeting]
    runs = [start("0", "1", *common, "name=by-name", **SECRET), start("1", "6", *common, "name=by-name", **SECRET)]
    for run in runs:
        _, errors = run.communicate(timeout=SECONDS)
        assert run.returncode == 0, errors
    # The first machine has one node, which takes all of its cores; the other's share theirs.
    cores = len(os.sched_getaffinity(0))
    for node, threads in ((0, cores), (1, 1), (5, 1)):
        log = (workplace / "runs" / "by-name" / f"node-{node}.log").read_text()
        assert f"threads of node {node}: {threads}\n" in log


def test_ctrl_c_while_an_import_runs_code_gives_the_exit_code_too(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(
        "import signal, sys\n"
        "from skippipe.__main__ import run_command\n"
        "def add_arguments(parser): pass\n"
        "def run(arguments): exec('signal.raise_signal(signal.SIGINT)', {'signal': signal})\n"
        "sys.exit(run_command(sys.modules['__main__'], 'command', []))\n"
    )
    command = [sys.executable, "-m", "command"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "stopped by SIGINT\n")
