"""Checkpoints of real runs: resuming equals an unbroken run, SIGTERM saves, kill -9 loses no saved work."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from skippipe.data.batches import prepare, validation_batches
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.inference import all_stages, validate
from skippipe.report.run_folder import process_ids
from skippipe.runtime.full_model import VALIDATION_BATCHES
from tests.end_to_end.conftest import SECONDS, Start, wait_for
from tests.end_to_end.timing import Timing


def finish(start: Start, workplace: Path, setting: str, name: str, *arguments: str) -> list[dict[str, Any]]:
    process = start("0", "6", setting, "2", f"{workplace}/small.yaml", f"name={name}", *arguments)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    lines = (workplace / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def values(lines: list[dict[str, Any]], field: str) -> dict[int, float]:
    return {line["iteration"]: line[field] for line in lines if field in line}


def test_a_resumed_run_has_the_losses_of_an_unbroken_one_bit_for_bit(start: Start, workplace: Path) -> None:
    every = ["checkpoint_every=2", "evaluate_every=2"]
    unbroken = finish(start, workplace, "ca-partial", "unbroken", *every)
    runs = workplace / "runs"
    assert find_latest(runs / "unbroken").meta.iteration == 5
    assert set(values(unbroken, "validation_perplexity")) == {1, 3}
    checkpoint = find_latest(runs / "unbroken" / "checkpoints" / "iteration-000004")
    batches = validation_batches(prepare(checkpoint.meta.config.data), 2, 32, VALIDATION_BATCHES)
    in_one_process = validate(load_stages(checkpoint), [all_stages(3)], batches).perplexity
    assert values(unbroken, "validation_perplexity")[3] == pytest.approx(in_one_process, rel=1e-5)
    second = runs / "unbroken" / "checkpoints" / "iteration-000002"
    resumed = finish(start, workplace, "ca-partial", "resumed", "--resume", str(second), *every, *Timing.REAL.fields)
    for field in ("loss", "gradient_norm", "validation_perplexity"):
        expected = {key: value for key, value in values(unbroken, field).items() if key >= 2}
        assert values(resumed, field) == expected
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "--resume", str(runs / "unbroken"))
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert "has 5 iterations done already" in errors
    other = finish(start, workplace, "baseline", "other-setting", "--resume", str(second), "iterations=3")
    assert values(other, "loss")[2] < values(unbroken, "loss")[0]


def test_sigterm_saves_and_kill_9_loses_nothing_that_was_saved(start: Start, workplace: Path) -> None:
    long = ["6", "ca-partial", "2", f"{workplace}/small.yaml", "iterations=100000", "checkpoint_every=3"]
    process = start("0", *long, "name=terminated")
    folder = workplace / "runs" / "terminated"
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"--resume {folder}" in errors
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    done = find_latest(folder).meta.iteration
    assert done == len(lines) == json.loads(lines[-1])["iteration"] + 1
    process = start("0", *long, "name=killed", *Timing.REAL.fields, "--resume", str(folder))
    killed = workplace / "runs" / "killed"
    wait_for(lambda: any((killed / "checkpoints").glob("*/stage-2.safetensors")))
    for process_id in process_ids(killed).values():
        os.kill(process_id, signal.SIGKILL)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    later = find_latest(killed if any((killed / "checkpoints").glob("*/stage-0.safetensors")) else folder)
    assert later.meta.iteration >= done
