"""A machine that was invited needs one line: it gets what the run is, and its nodes train, at the start or later."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from skippipe.model.parts import parts_in
from skippipe.report.metrics import read_metrics
from skippipe.report.run_folder import process_ids
from tests.end_to_end.conftest import SECONDS, Start, free_ports, wait_for
from tests.end_to_end.test_join import end, members
from tests.end_to_end.timing import Timing

HOST = "127.0.0.2"
"""Where a machine is that others reach from 127.0.0.1, as if it were another one."""
TRAINS_SECONDS = 15
FOREVER = "iterations=100000"


def invite(start: Start, workplace: Path, last: int, *fields: str, **others: str) -> subprocess.Popen[str]:
    """A machine with nodes 0 to `last` - 1 that invites others."""
    return start("0", str(last), "ca-partial", "2", f"{workplace}/small.yaml", *fields, "--host", **others)  # type: ignore[arg-type]


def line(run: subprocess.Popen[str]) -> list[str]:
    """The arguments that a host prints for others."""
    assert run.stdout is not None
    for text in run.stdout:
        if text.startswith("./run.sh "):
            return text.split()[1:]
    raise AssertionError(run.communicate(timeout=SECONDS))


def invited(arguments: list[str], folder: Path, *own: str) -> list[str]:
    """A host's line with fields of the machine that follows it, which has nothing of the run yet."""
    return [*arguments[:4], f"runs={folder}/runs", f"data.cache={folder}/cache", *own, *arguments[4:]]


def weights(folder: Path, node: int) -> str:
    """The hash of a node's weights when it was done."""
    return re.findall(r"weights (\w+)", (folder / f"node-{node}.log").read_text())[0]


def said_in(folder: Path) -> bytes:
    """All that is in the files below a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_one_line_is_enough(start: Start, workplace: Path, tmp_path: Path) -> None:
    fields = ["name=one-line", f"peers.host={HOST}", f"peers.first_port={free_ports(6)}", "emulation.time_scale=1.5"]
    host = invite(start, workplace, 3, *fields, "iterations=8")
    arguments = line(host)
    assert arguments[:5] == ["3", "6", "ca-partial", "2", "--join"]
    address, _, secret = arguments[5].partition("/#")
    assert address.startswith(f"skippipe://{HOST}:")
    # No text is here, and none of the run's ports.
    other = start(*invited(arguments, tmp_path, "data.paths=[/nowhere]"), cold=True)
    folder = tmp_path / "runs" / "one-line"
    wait_for(lambda: len(process_ids(folder)) == 3)
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (other.pid, *process_ids(folder).values())]
    assert all(b"--join\0" + address.encode() in command for command in commands)
    assert not any(secret.encode() in command for command in commands)
    left = [(folder / "launcher-3.json").stat().st_mode & 0o777]
    end(host, other)
    assert left == [0o600]
    here = workplace / "runs" / "one-line"
    assert [line.loss for line in read_metrics(here)] == [line.loss for line in read_metrics(folder)]
    assert weights(here, 2) == weights(folder, 3)
    assert not any(secret.encode() in said_in(place) for place in (here, tmp_path))


def test_an_invited_machine_gets_what_it_needs_of_the_checkpoint_too(
    start: Start, workplace: Path, tmp_path: Path
) -> None:
    alone = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=before", "iterations=4")
    alone.communicate(timeout=SECONDS)
    before = workplace / "runs" / "before"
    fields = ["name=after", f"peers.host={HOST}", f"peers.first_port={free_ports(6)}", "iterations=8"]
    fields += Timing.REAL.fields
    host = invite(start, workplace, 3, *fields, "--resume", str(before))
    arguments = line(host)
    assert arguments[4:7] == ["--resume", str(before), "--join"]
    # Where this path leads to nothing.
    arguments[5] = str(tmp_path / "runs" / "before")
    (output, _), _ = end(host, start(*invited(arguments, tmp_path)))
    assert f"going on from {before}/checkpoints/iteration-000004" in output
    parts = parts_in(tmp_path / "runs" / "before")
    assert [(part.meta.iteration, part.stages) for part in parts] == [(4, (1, 2))]
    folders = (workplace / "runs" / "after", tmp_path / "runs" / "after")
    losses = [{line.iteration: line.loss for line in read_metrics(folder)} for folder in folders]
    assert losses[0] == losses[1]
    assert list(losses[0]) == [4, 5, 6, 7]


def test_an_invitation_serves_later_too_and_at_any_machine(start: Start, workplace: Path, tmp_path: Path) -> None:
    fields = ["name=later", f"peers.host={HOST}", "peers.silence_seconds=6", "iterations=40"]
    host = invite(start, workplace, 3, *fields, f"peers.first_port={free_ports(6)}", "emulation.time_scale=1.5")
    arguments = line(host)[2:]
    port = free_ports(6)
    stays = start(*invited(["3", "5", *arguments], tmp_path / "stays", f"peers.first_port={port}"))
    gone = start(*invited(["5", "6", *arguments], tmp_path / "gone", f"peers.first_port={free_ports(6)}"))
    here, there, again = (place / "runs" / "later" for place in (workplace, tmp_path / "stays", tmp_path / "gone"))
    wait_for(lambda: (here / "metrics.jsonl").exists())
    os.killpg(gone.pid, signal.SIGKILL)
    wait_for(lambda: 5 not in members(here))
    # As if the first machine were gone: the second was invited itself.
    secret = arguments[-1].partition("/#")[2]
    arguments[-1] = f"skippipe://127.0.0.1:{port + 3}/#{secret}"
    wait_for(lambda: 5 not in members(there))
    # The machine that was gone itself, whose folder is there.
    back = start(*invited(["5", "6", *arguments], tmp_path / "gone", f"peers.first_port={free_ports(6)}"))
    *_, (_, errors) = end(host, stays, back)
    assert re.search(r"node 5 back in iteration \d+ with stage 2 of node 4", errors)
    assert weights(there, 4) == weights(again, 5)


def test_a_node_that_its_launcher_has_given_up_can_be_had(start: Start, workplace: Path, tmp_path: Path) -> None:
    fields = ["name=given-up", f"peers.host={HOST}", f"peers.first_port={free_ports(6)}", FOREVER]
    host = invite(start, workplace, 3, *fields, "peers.restart=0")
    arguments = line(host)
    # Its connection is open still, on which it got the nodes.
    stays = start(*invited(arguments, tmp_path / "stays", f"peers.first_port={free_ports(6)}"))
    here, there = (place / "runs" / "given-up" for place in (workplace, tmp_path / "stays"))
    wait_for(lambda: (here / "metrics.jsonl").exists() and (there / "metrics.jsonl").exists())
    os.kill(process_ids(there)[5], signal.SIGKILL)
    wait_for(lambda: 5 not in members(here))
    start(*invited(["5", *arguments[1:]], tmp_path / "other", f"peers.first_port={free_ports(6)}"))
    wait_for(lambda: 5 in members(here))
    assert host.poll() is stays.poll() is None


def test_what_is_wrong_with_an_invitation_is_said(start: Start, workplace: Path, tmp_path: Path) -> None:
    port = free_ports(6)
    host = invite(start, workplace, 3, "name=wrong", f"peers.host={HOST}", f"peers.first_port={port}", FOREVER)
    arguments = line(host)
    address, _, secret = arguments[5].partition("/#")
    nobody = free_ports(6)

    def refused(
        text: str,
        nodes: tuple[str, str] = ("3", "6"),
        setting: str = "ca-partial",
        samples: str = "2",
        patched: tuple[str, ...] = (),
    ) -> str:
        """What is said to whoever follows such an invitation."""
        run = start(*nodes, setting, samples, f"runs={tmp_path}", "--join", text, patched=patched)  # type: ignore[arg-type]
        _, errors = run.communicate(timeout=SECONDS)
        assert run.returncode == 2, errors
        assert len(errors.splitlines()) == 1, errors
        assert secret not in errors
        return errors

    whole = arguments[5]
    there = address.removeprefix("skippipe://")
    assert f"{there} hangs up: the invitation's secret is wrong" in refused(whole + "x")
    unreached = refused(f"skippipe://{HOST}:{nobody}/#{secret}")
    assert f"{HOST}:{nobody} can't be reached (Connection refused)" in unreached
    assert "an invitation begins with skippipe://" in refused(f"https://{there}/#{secret}")
    assert "needs an address like" in refused(f"skippipe://{HOST}/#{secret}")
    assert "nodes 2 are taken; free ones: 3 to 5" in refused(whole, ("2", "6"))
    assert "the run has nodes 0 to 5" in refused(whole, ("3", "7"))
    assert "it differs in: SETTING (baseline here, ca-partial there)" in refused(whole, setting="baseline")
    assert "it differs in: SAMPLES (4 here, 2 there)" in refused(whole, samples="4")
    assert re.search(
        r"runs something else; it differs in: the code \(0123456789abcdef here\); get the same version",
        refused(whole, patched=("other_code",)),
    )
    # Whoever was refused keeps nothing, whoever was not its nodes.
    start(*invited(["3", "5", *arguments[2:]], tmp_path / "first", f"peers.first_port={free_ports(6)}"))
    wait_for(lambda: len(process_ids(tmp_path / "first" / "runs" / "wrong")) == 2)
    assert "nodes 4 are taken; free ones: 5" in refused(whole, ("4", "6"))
    assert host.poll() is None


def test_a_whole_run_invites_nobody(start: Start, workplace: Path) -> None:
    run = invite(start, workplace, 6, "name=invites-nobody")
    _, errors = run.communicate(timeout=SECONDS)
    assert run.returncode == 2
    assert "--host: all 6 nodes start here, so that nobody is missing" in errors


def test_a_machine_in_another_network_trains_soon_after_one_line(
    start: Start, workplace: Path, tmp_path: Path, hosts: tuple[str, str]
) -> None:
    # Nothing is said of addresses and ports on either machine.
    host = invite(start, workplace, 3, "name=networks", inside=hosts[0])
    arguments = line(host)
    assert arguments[5].startswith("skippipe://10.77.0.1:4000/#")
    began, load = time.monotonic(), os.getloadavg()[0]
    other = start(*invited(arguments, tmp_path), inside=hosts[1], cold=True)
    metrics = tmp_path / "runs" / "networks" / "metrics.jsonl"
    wait_for(metrics.exists)
    if load < len(os.sched_getaffinity(0)):
        assert time.monotonic() - began < TRAINS_SECONDS
    end(host, other)
    assert weights(workplace / "runs" / "networks", 2) == weights(tmp_path / "runs" / "networks", 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_line_for_others_is_gone_with_the_run(
    start: Start, workplace: Path, tmp_path: Path, number: signal.Signals
) -> None:
    port = free_ports(6)
    host = invite(start, workplace, 3, f"name=ended-{number}", f"peers.host={HOST}", f"peers.first_port={port}")
    arguments = line(host)
    host.send_signal(number)
    host.communicate(timeout=SECONDS)
    late = start(*invited(arguments, tmp_path))
    _, errors = late.communicate(timeout=SECONDS)
    assert late.returncode == 2
    assert f"{HOST}:{port} can't be reached (Connection refused); does the run that invites go on?" in errors
