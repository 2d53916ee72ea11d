"""A node's log is bounded, and so is what others write to the process's standard output and error."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skippipe.runtime.child import NodeLog, set_up_log

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
