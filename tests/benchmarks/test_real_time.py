"""What benchmarks of real time measure: a process's own peak that is over, and steps without the first."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.conftest import LoadScript

CHILD = "import sys; memory = bytearray(64_000_000); del memory; print('given back', flush=True); sys.stdin.read()"


def test_a_peak_is_known_when_it_is_over(load_script: LoadScript) -> None:
    script = load_script("memory")
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "given back\n"
        assert 64e6 < script.own_peak(child.pid) < 90e6
    finally:
        child.communicate()


def test_a_step_ends_where_the_next_begins_and_the_first_does_not_count(load_script: LoadScript) -> None:
    script = load_script("overhead")
    assert script.median_step([0.0, 10.0, 11.0, 12.5, 13.5]) == 1.0
    job = script.JOBS["small"]
    schedule = job.schedule()
    schedule.validate()
    assert len(schedule.plan(script.SETTING).paths) == job.microbatches == 12
