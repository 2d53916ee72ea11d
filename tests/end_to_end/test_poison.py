"""Numbers that are not finite, at any place of a run: the iteration is dropped everywhere, and its cause is named."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.fields import load_config
from skippipe.model.checkpoint import find_latest, load_stages, stage_file
from skippipe.model.checkpoint_meta import STEP
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.runtime.processes import DIVERGED_EXIT
from skippipe.runtime.soundness import Poison
from skippipe.schedule import Schedule
from tests.end_to_end.conftest import SECONDS, Start, wait_for
from tests.end_to_end.timing import Timing
from tests.small_schedule import STAGES

PLACES = {
    Poison.ACTIVATION: (3, "an activation computed by node 3 (stage 1)"),
    Poison.LOSS: (1, "the loss at node 1 (stage 0)"),
    Poison.GRADIENT: (4, "a gradient computed by node 4 (stage 2)"),
    Poison.WEIGHT_GRADIENT: (5, "the weights' gradient at node 5 (stage 2)"),
    Poison.SUM: (2, "the replicas' summed gradient at node 2 (stage 1)"),
}
"""Where each is put in; what only arrives somewhere has its cause in one of these."""
REAL = (Poison.GRADIENT, Poison.SUM)
"""Those that come in real time."""
DROPPED = 2


@pytest.mark.parametrize("poison", PLACES)
def test_a_poisoned_iteration_is_dropped_by_all_and_its_cause_named(
    start: Start, workplace: Path, poison: Poison
) -> None:
    node, cause = PLACES[poison]
    timing = Timing.REAL if poison in REAL else Timing.EMULATED
    name = f"poisoned-{poison.name}"
    fields = [f"{workplace}/small.yaml", f"name={name}", "checkpoint_every=5", *timing.fields]
    process = start("0", "6", "ca-partial", "2", *fields, patched=("poisoned", poison.name, str(node), str(DROPPED)))
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert f"iteration {DROPPED} dropped: {cause} was not finite" in errors
    folder = workplace / "runs" / name
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "dropped" in line] == [DROPPED]
    assert lines[DROPPED]["dropped"].startswith(cause)
    assert json.loads((folder / "summary.json").read_text())["dropped_iterations"] == 1

    torch.set_num_threads(1)
    config = load_config(RunConfig, workplace / "small.yaml")
    plan = Schedule.load(Path(config.schedule)).settings["ca-partial"]
    reference = ReferenceTrainer(config, plan, 2, prepare(config.data))
    # The dropped iteration's batches are not tried again, and the learning rate's warm-up has counted it.
    expected = {iteration: reference.train_iteration(iteration) for iteration in range(5) if iteration != DROPPED}
    assert {i: lines[i]["loss"] for i in expected} == pytest.approx(expected, rel=1e-5)
    assert float(load_file(stage_file(find_latest(folder).folder, 0))[STEP]) == 4
    for trained, wanted in zip(load_stages(find_latest(folder)), reference.stages, strict=True):
        states = canonical_state(trained), canonical_state(wanted)
        for tensor in states[1]:
            assert torch.allclose(states[0][tensor], states[1][tensor], atol=1e-6), tensor
    digests = [re.search(r"weights (\w+)", (folder / f"node-{node}.log").read_text()) for node in range(6)]
    for replicas in STAGES:
        assert len({match[1] for node in replicas if (match := digests[node])}) == 1, "replicas differ"


def test_a_learning_rate_beyond_reason_ends_the_run_and_names_the_newest_good_checkpoint(
    start: Start, workplace: Path
) -> None:
    folder = workplace / "runs" / "diverged"
    # The first step has a rate of 0, so that a checkpoint is good.
    fields = ["optimizer.learning_rate=1e9", "optimizer.warmup_iterations=1", "checkpoint_every=1", "iterations=100"]
    fields += ["checkpoints_kept=2", "optimizer.dropped_in_a_row=3", *Timing.REAL.fields]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=diverged", *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == DIVERGED_EXIT, errors
    assert "the last 3 iterations were dropped" in errors
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all("dropped" in line for line in lines[-3:])
    assert "dropped" not in lines[-4]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["dropped_iterations"] == sum("dropped" in line for line in lines)
    assert "Traceback" not in errors
    # The weights after the last update have never given a finite number: that checkpoint is not to be gone on from.
    kept = sorted(entry.name for entry in (folder / "checkpoints").iterdir())
    last_good = lines[-4]["iteration"]
    assert not any(name > f"iteration-{last_good:06d}" for name in kept if name.startswith("iteration"))
    assert any(name.startswith("not-finite") for name in kept)
    newest = folder / "checkpoints" / max(name for name in kept if name.startswith("iteration"))
    assert f"newest good checkpoint: {newest}; go on from it with --resume {folder}\n" in errors
    for path in (folder / "checkpoints").glob("iteration-*/*.safetensors"):
        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(path).values())


def test_weights_that_overflow_are_named_by_stage_and_push_no_checkpoint_out(start: Start, workplace: Path) -> None:
    runs = workplace / "runs"
    first = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=well", "checkpoint_every=5")
    assert first.wait(SECONDS) == 0
    file = stage_file(find_latest(runs / "well").folder, 1)
    tensors = load_file(file)
    with_metadata = read_metadata(file)
    for name in ("gate", "up"):
        tensors[f"model.layers.1.mlp.{name}_proj.weight"].fill_(1e30)
    save_file(tensors, file, with_metadata)
    fields = ["iterations=50", "checkpoint_every=1", "optimizer.dropped_in_a_row=2", *Timing.REAL.fields]
    fields += ["--resume", str(runs / "well")]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=overflown", *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == DIVERGED_EXIT, errors
    assert re.search(r"iteration 5 dropped: an activation computed by node [23] \(stage 1\) was not finite", errors)
    assert "no complete checkpoint" in errors
    assert f"; this run went on from {find_latest(runs / 'well').folder}\n" in errors
    assert not list((runs / "overflown" / "checkpoints").glob("iteration-*"))


def test_a_run_told_to_stop_after_nothing_but_dropped_iterations_still_saves(start: Start, workplace: Path) -> None:
    every = ",".join(map(str, range(1000)))
    fields = ["name=all-dropped", "iterations=1000", "checkpoint_every=500", "optimizer.dropped_in_a_row=1000"]
    process = start(
        "0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, patched=("poisoned", "LOSS", "0", every)
    )
    folder = workplace / "runs" / "all-dropped"
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert float(load_file(stage_file(find_latest(folder).folder, 2))[STEP]) == 0


def read_metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())
