"""Training from Python: what goes wrong is an exception that says where to look, and nothing is left running."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from skippipe import RunConfig, UserError, train
from skippipe.config import DataConfig, ModelConfig
from skippipe.report.run_folder import process_ids
from skippipe.runtime.train import TrainingFailedError
from tests.end_to_end.conftest import SECONDS, alive
from tests.small_schedule import STAGES, small_schedule


def config(folder: Path, paths: str, iterations: int = 1) -> RunConfig:
    """A run of the small schedule in a folder."""
    return RunConfig(
        iterations=iterations,
        runs=str(folder / "runs"),
        name="trained",
        model=ModelConfig(context=32),
        data=DataConfig(source="files", paths=(paths,), vocabulary=300, cache=str(folder / "cache")),
    )


def test_a_setting_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no setting 'joint', only baseline, ca-partial"):
        train(small_schedule(), "joint", config(tmp_path, "anything"))
    assert not list(tmp_path.iterdir())


def test_what_the_command_refuses_is_a_users_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="can't be trained"):
        train(small_schedule(), "ca-partial", config(tmp_path, str(tmp_path / "nowhere")))
    assert "nowhere" in capfd.readouterr().err


def test_all_origins_that_die_end_the_training_with_an_exception(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "trained"

    def kill_all_origins() -> None:
        deadline = time.monotonic() + SECONDS
        while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        for node in STAGES[0]:
            os.kill(process_ids(folder)[node], signal.SIGKILL)

    text = tmp_path / "text.txt"
    text.write_text("".join(f"number {i} of many lines of text that say nothing new\n" for i in range(3000)))
    killer = threading.Thread(target=kill_all_origins)
    killer.start()
    with pytest.raises(TrainingFailedError, match=str(folder)):
        train(small_schedule(), "ca-partial", config(tmp_path, str(text), iterations=100_000))
    killer.join()
    assert not any(alive(pid) for pid in process_ids(folder).values())
