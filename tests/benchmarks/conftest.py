"""Benchmarks as modules, and a run whose nodes do nothing, for what disturbs runs."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.disturbing import DisturbedRun, output_of
from tests.end_to_end.conftest import wait_for
from tests.test_fuzzers import BENCHMARKS

LAUNCHER = """
import os, subprocess, sys, time
folder = sys.argv[1]
os.mkdir(folder)
for node in range(2):
    child = subprocess.Popen(["sleep", "600"])
    open(f"{folder}/node-{node}.pid", "w").write(str(child.pid))
print("step/s\\rat work", flush=True)
time.sleep(600)
"""
"""Starts two processes, which survive it, and leaves their numbers as a launcher does."""

LoadScript = Callable[[str], ModuleType]


@pytest.fixture
def load_script(monkeypatch: pytest.MonkeyPatch) -> LoadScript:
    """Import a module of benchmarks/ by its name, whose own imports are those of a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def run(tmp_path: Path) -> Iterator[DisturbedRun]:
    """A run of two nodes that do nothing."""
    folder = tmp_path / "run"
    run = DisturbedRun.start([sys.executable, "-c", LAUNCHER, str(folder)], folder)
    wait_for(lambda: "at work" in output_of(folder).read_text())
    yield run
    run.process.kill()
    run.process.wait()
    for pid in run.left_behind():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
