"""Whether a run's data, memory and disk suffice: what can be known before its nodes start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.schedule import Plan

if TYPE_CHECKING:
    from skippipe.data.batches import Prepared

FP32_BYTES = 4
KEPT_WHILE_TRAINING, KEPT_ON_DISK = 4, 3
"""Numbers a parameter: weight, gradient and AdamW's two moments; on the disk all but the gradient."""
KEPT_OF_SYNCS = 2
"""More of them at each node if syncs are compressed: what they left out, before and after; on the disk one of them."""


def check_room(config: RunConfig, plan: Plan, samples: int, local: range, prepared: Prepared, folder: Path) -> None:
    """UserError if the text is too short, or this machine's memory or disk too small, for the nodes `local`."""
    from skippipe.data.batches import Batches, validation_batches

    model, origins = config.model, plan.stages[0]
    for part in range(len(origins)):
        Batches(prepared, part, len(origins), samples, model.context, config.seed)
    if config.evaluate_every:
        next(validation_batches(prepared, samples, model.context, 1))
    stage_bytes = [FP32_BYTES * parameters(config, stage, prepared.vocabulary) for stage in range(len(plan.stages))]
    stage_of = plan.stage_of()
    if config.device == "cpu":
        kept = KEPT_WHILE_TRAINING + (KEPT_OF_SYNCS if config.compression.sync != "fp32" else 0)
        needed = kept * sum(stage_bytes[stage_of[node]] for node in local)
        check_enough("memory for weights, gradients and moments", needed, memory_bytes(), "a smaller model")
    if config.checkpoint_every is not None:
        saved = KEPT_ON_DISK * sum(
            size for size, nodes in zip(stage_bytes, plan.stages, strict=True) if nodes[0] in local
        )
        if config.compression.sync != "fp32":
            saved += sum(stage_bytes[stage_of[node]] for node in local)
        saves = -(-config.iterations // (config.checkpoint_every or config.iterations))
        count = min(config.checkpoints_kept + 1, saves)
        free = shutil.disk_usage(folder).free
        remedy = "fewer checkpoints_kept, or none: checkpoint_every=null"
        check_enough(f"disk for {count} checkpoints in {folder}", count * saved, free, remedy)


def parameters(config: RunConfig, stage: int, vocabulary: int) -> int:
    """Parameters of a stage."""
    width, hidden = config.model.d_model, config.model.hidden_width
    layers = config.model.layers_per_stage * (4 * width * width + 3 * width * hidden + 2 * width)
    return layers + (2 * vocabulary * width + width if stage == 0 else 0)


def memory_bytes() -> int:
    """This machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_enough(what: str, needed: int, there: int, remedy: str) -> None:
    """UserError if less is there than is needed, in bytes."""
    if needed > there:
        raise UserError(f"{what}: {needed / 1e9:.1f} GB are needed, {there / 1e9:.1f} GB are there; try {remedy}")
