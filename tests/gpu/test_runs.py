"""Whole runs on a machine's GPUs: they train what one process trains, and share the GPUs as the configuration says."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from tests.end_to_end.conftest import Start
from tests.end_to_end.exactness import check_exact

SECONDS = 240
ITERATIONS = 5
TOLERANCE = 1e-3
"""Largest relative difference of a loss, and of any tensor of weights as a whole, from one process on the GPU: sums go
in another order, and bf16 may round a number over."""
COMPUTING = {
    "fp32": [],
    "bf16": ["precision=bf16"],
    "recompute": ["precision=bf16", "recompute=true"],
    "compile": ["precision=bf16", "compile=true", "peers.connect_seconds=200"],
}


@pytest.mark.parametrize("case", COMPUTING)
def test_six_nodes_on_gpus_train_in_real_time_what_one_process_trains(start: Start, workplace: Path, case: str) -> None:
    fields = ["device=cuda", "emulation.enabled=false", *COMPUTING[case], f"name=gpu-{case}"]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    check_exact(workplace, workplace / "runs" / f"gpu-{case}", fields, ITERATIONS, tolerance=TOLERANCE, by_number=False)


def test_twenty_nodes_train_on_the_gpus_that_are_there(start: Start, workplace: Path) -> None:
    fields = ["schedule=original-20-nodes", "device=cuda", "emulation.time_scale=0.02", "name=gpu-twenty"]
    process = start("0", "20", "ca-partial", "2", f"{workplace}/small.yaml", *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / "gpu-twenty"
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == ITERATIONS
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    for node in range(20):
        device = re.search(r"device of node \d+: (\S+)", (folder / f"node-{node}.log").read_text())
        assert device is not None
        assert device[1] == f"cuda:{node % torch.cuda.device_count()}"
