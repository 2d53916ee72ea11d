"""What benchmarks of real time measure: a process's own peak that is over, and steps without the first."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CHILD = "import sys; memory = bytearray(64_000_000); del memory; print('given back', flush=True); sys.stdin.read()"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """A module of benchmarks/, whose own imports are those of a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["memory"], indirect=True)
def test_a_peak_is_known_when_it_is_over(script: ModuleType) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "given back\n"
        assert 64e6 < script.own_peak(child.pid) < 90e6
    finally:
        child.communicate()


@pytest.mark.parametrize("script", ["overhead"], indirect=True)
def test_a_step_ends_where_the_next_begins_and_the_first_does_not_count(script: ModuleType) -> None:
    assert script.median_step([0.0, 10.0, 11.0, 12.5, 13.5]) == 1.0
    job = script.JOBS["small"]
    schedule = job.schedule()
    schedule.validate()
    assert len(schedule.plan(script.SETTING).paths) == job.microbatches == 12
