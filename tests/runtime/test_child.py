"""A node's log is bounded, and so is what others write to the process's standard output and error."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from skippipe.runtime.child import NodeLog, become, set_up_log
from skippipe.runtime.endpoint import Endpoint
from skippipe.runtime.processes import PEER_LOST_EXIT
from skippipe.runtime.signals import Signals
from skippipe.transport.message import whole_number

MOST = 3000


def in_a_child(work: Callable[[], None]) -> None:
    """A node's process gives its standard output and error away, which a test's must not."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == 0


def test_a_full_log_makes_room_for_the_next_and_only_the_one_before_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "node-3.log"
    log.write_text("of the node's former process\n")

    def write() -> None:
        set_up_log(NodeLog(log, MOST))
        for number in range(500):
            logging.getLogger("a").info("line %d", number)
            os.write(1 + number % 2, f"written past the log, {number}\n".encode())

    in_a_child(write)
    before = tmp_path / "node-3.log.1"
    assert sorted(tmp_path.iterdir()) == [log, before]
    assert all(path.stat().st_size <= MOST + 100 for path in (log, before))
    written = (before.read_text() + log.read_text()).splitlines()
    first = 500 - len(written) // 2
    assert first < 480
    expected = [text for i in range(first, 500) for text in (f"INFO line {i}", f"written past the log, {i}")]
    assert [line.split(" ", 2)[2] if " INFO " in line else line for line in written][-len(expected) :] == expected


def test_a_node_goes_on_with_the_log_of_its_former_process(tmp_path: Path) -> None:
    log = tmp_path / "node-3.log"
    for number in range(2):

        def write(number: int = number) -> None:
            set_up_log(NodeLog(log))
            logging.getLogger("a").info("process %d", number)

        in_a_child(write)
    assert [line.split(" ", 2)[2] for line in log.read_text().splitlines()] == ["INFO process 0", "INFO process 1"]


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        NodeLog(tmp_path)


def test_what_a_peer_shares_and_nobody_can_read_ends_a_node_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "node-3.log"
    endpoint, signals = cast(Endpoint, SimpleNamespace(node=3)), cast(Signals, None)
    monkeypatch.setattr("skippipe.runtime.child.be_a_child", lambda *_: set_up_log(NodeLog(log)))

    def run_node(_: Endpoint) -> None:
        whole_number(99.0, 6)

    child = multiprocessing.get_context("fork").Process(target=become, args=(endpoint, run_node, 0, signals, -1, []))
    child.start()
    child.join()
    assert child.exitcode == PEER_LOST_EXIT
    (line,) = log.read_text().splitlines()
    assert line.endswith(" ERROR 99.0 is no whole number from 0 to 6")


def test_garbage_of_a_node_is_collected_though_its_launcher_has_imported_much(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, signals = cast(Endpoint, SimpleNamespace(node=3)), cast(Signals, None)
    monkeypatch.setattr("skippipe.runtime.child.be_a_child", lambda *_: None)

    def run_node(_: Endpoint) -> None:
        # As of broken connections: each refers to itself, and is needed for some time.
        recent: deque[list[Any]] = deque(maxlen=3000)
        for _ in range(300_000):
            recent.append([])
            recent[-1].append(recent[-1])
        if len(gc.get_objects()) > 100_000:
            raise RuntimeError("garbage is left")

    modules = [[] for _ in range(600_000)]
    gc.collect()
    gc.freeze()
    try:
        child = multiprocessing.get_context("fork").Process(
            target=become, args=(endpoint, run_node, 0, signals, -1, [])
        )
        child.start()
        child.join()
    finally:
        gc.unfreeze()
    assert child.exitcode == 0, len(modules)
