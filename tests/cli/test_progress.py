"""What a launcher shows of a run: a bar to look at, and no more than a line a minute in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from skippipe.cli.progress import Progress
from skippipe.config import RunConfig
from skippipe.report.metrics import IterationMetrics
from skippipe.runtime.events import IterationLoss, Ready
from tests.small_schedule import small_schedule

ITERATIONS = 500


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
