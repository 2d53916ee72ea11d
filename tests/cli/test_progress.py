"""What a launcher shows of a run: a bar to look at, and no more than a line a minute in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from skippipe.cli.progress import Progress
from skippipe.cli.run import say_what_was_saved
from skippipe.config import RunConfig
from skippipe.model.checkpoint import checkpoint_folder
from skippipe.report.metrics import IterationMetrics
from skippipe.runtime.events import IterationLoss, Leaving, Ready
from tests.small_schedule import small_schedule

ITERATIONS = 500


def test_a_checkpoint_that_is_not_there_is_not_said_to_be(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress(small_schedule(), "ca-partial", RunConfig(iterations=ITERATIONS), tmp_path, range(6), 0.0)
    assert say_what_was_saved(progress, Leaving(iteration=6, asked=2)) == 1
    said = capfd.readouterr().err
    assert "node 2 and its machine were told to stop (SIGTERM)" in said
    assert f"error: 7 iterations were done, but {checkpoint_folder(tmp_path, 7)} is not complete: " in said
    assert "saved after" not in said


def test_what_is_shown_is_short_where_nobody_looks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(iterations=ITERATIONS)
    progress = Progress(small_schedule(), "ca-partial", config, tmp_path, range(6), 0.0)
    for node in range(6):
        progress.on_event(Ready(node))
    for i in range(ITERATIONS):
        progress.on_event(IterationLoss(i, 7.0 - i / ITERATIONS))
        progress.on_event(IterationMetrics(i, 7.0, 1.0, 30.0, 50.0, 100, 2.0, 1000))
    progress.finish()
    shown, errors = capfd.readouterr()
    assert "6 nodes ready" in shown
    assert "500/500" in errors
    assert "loss=6.002" in errors
    assert len(errors) < 100 * 30
