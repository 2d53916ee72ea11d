"""A launcher's processes are ended, and one that can't be ended does not hold up its launcher."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.peers import PeersConfig
from skippipe.runtime import stopping
from skippipe.runtime.claims import Claims, goes_on
from skippipe.runtime.events import Joining, NodeBack, ViewBegun
from skippipe.runtime.launcher import Launcher
from skippipe.runtime.processes import Process
from skippipe.runtime.signals import Signals


@pytest.fixture
def child() -> Iterator[Process]:
    """A process that ends of SIGTERM at once."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            signal.pause()
    notices, to_node = os.pipe()
    os.close(notices)
    yield Process(3, pid, os.pidfd_open(pid), to_node)
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_process_is_ended_and_reaped(child: Process) -> None:
    processes = {3: child}
    with Signals() as signals:
        stopping.stop_all(processes, signals)
    assert processes == {}
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_process_that_can_not_be_killed_is_named_and_left(
    child: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As of one that waits for a disk or a driver: signals reach it, and nothing comes of them.
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda handle, number: None)
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(stopping, "KILLED_SECONDS", 0.1)
    processes, began = {3: child}, time.monotonic()
    with caplog.at_level(logging.WARNING), Signals() as signals:
        stopping.stop_all(processes, signals)
    assert processes == {}
    assert f"node 3 (process {child.pid}) does not end, even killed" in caplog.text
    assert time.monotonic() - began < 10
    os.kill(child.pid, 0)


def test_where_no_file_can_be_locked_is_said() -> None:
    with pytest.raises(UserError, match=r"runs: /proc/launchers.lock can't be written"):
        Claims(Path("/proc"))


def test_a_folder_without_a_launcher_does_not_go_on(tmp_path: Path) -> None:
    assert not goes_on(tmp_path / "nowhere", 6)
    assert not goes_on(tmp_path, 6)


def test_only_a_joining_process_without_signs_of_life_hangs(child: Process, caplog: pytest.LogCaptureFixture) -> None:
    none: Any = None
    peers = PeersConfig(connect_seconds=60, silence_seconds=6)
    listeners = SimpleNamespace(address=("127.0.0.1", 1), bound=("127.0.0.1", 1), bound_stream_port=1)
    endpoint: Any = SimpleNamespace(node=3, peers=peers, first_birth=0, listeners=listeners)
    launcher = Launcher([endpoint], 0, none, none, none)
    launcher.processes[3] = child
    now = child.seen = time.monotonic()
    assert launcher.wait_s(now) is None
    # It opens its links first.
    child.is_joining = True
    assert launcher.wait_s(now) == 120
    launcher.take(Joining(3), none)
    assert 11 < launcher.wait_s(time.monotonic()) <= 12
    launcher.restarts.plan(4, now)
    assert launcher.wait_s(now) == 1
    launcher.end_hanging(child.seen + 11.9)
    assert not caplog.records
    child.is_joining = False
    launcher.end_hanging(now + 1000)
    assert not caplog.records
    child.is_joining = True
    launcher.end_hanging(child.seen + 12)
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
    launcher.end_hanging(now + 1000)
    assert len(caplog.records) == 1


def test_what_is_told_again_ends_nobody_that_has_come_back(child: Process) -> None:
    none: Any = None
    listeners = SimpleNamespace(address=("127.0.0.1", 1), bound=("127.0.0.1", 1), bound_stream_port=1)
    endpoint: Any = SimpleNamespace(node=3, peers=RunConfig().peers, first_birth=0, listeners=listeners)
    launcher = Launcher([endpoint], 0, none, none, none)
    launcher.processes[3] = child
    lost, again = (ViewBegun(number, 7, (3,), (), (), "takeover", (), 0, (), (), 1.0) for number in (1, 2))
    child.is_joining = True
    launcher.take(lost, lambda event: None)
    launcher.take(NodeBack(3, 9, 1, "node 2", 0, 0.0), lambda event: None)
    # By whoever speaks after a node that has died.
    launcher.take(lost, lambda event: None)
    assert not child.is_left_out
    launcher.take(again, lambda event: None)
    assert child.is_left_out
