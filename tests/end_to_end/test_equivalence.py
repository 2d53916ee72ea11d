"""Six processes over real DecCom links train exactly what one process trains."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.fields import load_config
from skippipe.model.checkpoint import find_latest
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Schedule
from skippipe.schedule.plan import make_plan
from tests.end_to_end.conftest import SECONDS, Start
from tests.end_to_end.exactness import check_exact
from tests.end_to_end.timing import Timing
from tests.small_schedule import STAGES, small_schedule

ITERATIONS = 5


@pytest.mark.parametrize(
    ("blocks", "timing"), [("transformers", Timing.EMULATED), ("transformers", Timing.REAL), ("simplellm", Timing.REAL)]
)
@pytest.mark.parametrize("setting", ["ca-partial", "baseline"], ids=["skips", "swaps"])
def test_peers_train_what_one_process_trains(
    start: Start, workplace: Path, setting: str, blocks: str, timing: Timing
) -> None:
    name = f"equal-{setting}-{blocks}-{timing.name}"
    fields = [f"model.blocks={blocks}", f"name={name}", f"checkpoint_every={ITERATIONS}", *timing.fields]
    process = start("0", "6", setting, "2", f"{workplace}/small.yaml", *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / name

    check_exact(workplace, folder, fields, ITERATIONS, setting)


@pytest.mark.parametrize("timing", Timing)
def test_a_stage_that_no_microbatch_visits_is_trained_by_none(start: Start, workplace: Path, timing: Timing) -> None:
    name, file = f"unvisited-{timing.name}", workplace / "unvisited.json"
    small = small_schedule()
    plan = make_plan(STAGES, np.array([[0, 2]]), small.costs, 2, [0.05] * 3, {"solver": "by hand"})
    pipeline = dataclasses.replace(small.pipeline, microbatches_per_node=1)
    dataclasses.replace(small, pipeline=pipeline, settings={"ca-partial": plan}).save(file)
    fields = [f"schedule={file}", f"name={name}", f"checkpoint_every={ITERATIONS}", *timing.fields]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    check_exact(workplace, workplace / "runs" / name, fields, ITERATIONS)


BF16_TOLERANCE = 1e-3
"""As exactness.TOLERANCE in bf16: a sum's last bit, which hangs on its order, may round a weight's copy over."""


@pytest.mark.parametrize("timing", Timing)
def test_peers_train_in_bf16_and_recompute_what_one_process_trains_in_bf16(
    start: Start, workplace: Path, timing: Timing
) -> None:
    name = f"equal-bf16-{timing.name}"
    fields = ["precision=bf16", f"name={name}", *timing.fields]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "recompute=true", *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    check_exact(workplace, workplace / "runs" / name, fields, ITERATIONS, tolerance=BF16_TOLERANCE)


COMPRESSED_TOLERANCE = 1e-3
"""As exactness.TOLERANCE for compressed syncs: a sum's last bit, which hangs on its order, may round a number over."""


def test_compressed_syncs_train_what_one_process_trains_and_resume(start: Start, workplace: Path) -> None:
    fields = ["compression.sync=int8", f"checkpoint_every={ITERATIONS}", "name=compressed"]
    arguments = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml")
    process = start(*arguments, *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / "compressed"

    torch.set_num_threads(1)
    config = load_config(RunConfig, workplace / "small.yaml", fields)
    plan = Schedule.load(Path(config.schedule)).settings["ca-partial"]
    reference = ReferenceTrainer(config, plan, 2, prepare(config.data))
    expected = [reference.train_iteration(iteration) for iteration in range(ITERATIONS)]
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(expected, rel=COMPRESSED_TOLERANCE)
    digests = [re.search(r"weights (\w+)", (folder / f"node-{node}.log").read_text()) for node in range(6)]
    for replicas in STAGES:
        assert len({match[1] for node in replicas if (match := digests[node])}) == 1, "replicas differ"

    resumed = ReferenceTrainer(config, plan, 2, prepare(config.data))
    resumed.resume(find_latest(folder))
    for (replica, codec), (_, wanted) in zip(resumed.codecs(), reference.codecs(), strict=True):
        assert 0 < codec.left_out.norm() < 1.5 * wanted.left_out.norm(), replica
    fields = ["compression.sync=int8", "iterations=7", "name=resumed-int8", *Timing.REAL.fields]
    process = start(*arguments, *fields, "--resume", str(folder))
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / "resumed-int8"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["loss"] == pytest.approx(
        reference.train_iteration(ITERATIONS), rel=COMPRESSED_TOLERANCE
    )
    assert all("left out" not in (folder / f"node-{node}.log").read_text() for node in range(6))
