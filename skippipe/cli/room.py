"""Whether a run's model fits its schedule, and its machine: what can be known before its nodes start."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.schedule import Schedule

if TYPE_CHECKING:
    from skippipe.data.prepared import Prepared
    from skippipe.runtime.needs import Needs

DISK_REMEDY = "fewer checkpoints_kept, or none: checkpoint_every=null"


def check_model(config: RunConfig, schedule: Schedule) -> None:
    """The model must be the schedule's; with emulation on a stand-in of another width will do."""
    fields = ["layers_per_stage"]
    if not config.emulation.enabled:
        fields += ["d_model", "heads", "context"]
    for name in fields:
        ours, theirs = getattr(config.model, name), getattr(schedule.pipeline, name)
        if ours != theirs:
            raise UserError(
                f"{config.schedule}: pipeline.{name} is {theirs}, but model.{name} is {ours}; add model.{name}={theirs}"
            )
    ours, theirs = config.model.hidden_width, schedule.pipeline.hidden_width
    if not config.emulation.enabled and ours != theirs:
        raise UserError(
            f"{config.schedule}: pipeline.feed_forward is {theirs}, but model.feed_forward is {ours};"
            f" add model.feed_forward={theirs}"
        )


def check_room(
    config: RunConfig, schedule: Schedule, setting: str, local: range, prepared: Prepared, folder: Path
) -> None:
    """UserError if the text is too short, or this machine's memory or disk too small, for the nodes `local`."""
    from skippipe.data.batches import validation_batches
    from skippipe.data.parts import check_parts
    from skippipe.runtime.full_model import VALIDATION_BATCHES
    from skippipe.runtime.needs import needs

    model, plan, samples = config.model, schedule.settings[setting], schedule.pipeline.samples_per_microbatch
    check_parts(prepared, len(plan.stages[0]), samples, model.context)
    if config.evaluate_every:
        # All that nodes will ask for: of a stream it is read now, once for all.
        next(validation_batches(prepared, samples, model.context, VALIDATION_BATCHES))
    every = needs(config, schedule, setting, prepared.vocabulary)
    check_memory(config, [own for own in every if own.node in local])
    count, saved = checkpoint_bytes(config, schedule, setting, local, every)
    check_enough(f"disk for {count} checkpoints in {folder}", count * saved, free_disk_bytes(folder), DISK_REMEDY)


def checkpoint_bytes(
    config: RunConfig, schedule: Schedule, setting: str, local: range, every: list[Needs]
) -> tuple[int, int]:
    """How many checkpoints will lie on this machine's disk at once, and what the nodes `local` save of each of them."""
    from skippipe.model.footprint import FP32
    from skippipe.runtime.needs import SAVED_NUMBERS

    if config.checkpoint_every is None:
        return 0, 0
    leaders = [nodes[0] for nodes in schedule.settings[setting].stages if nodes[0] in local]
    saved = sum(SAVED_NUMBERS * FP32 * own.parameters for own in every if own.node in leaders)
    if config.compression.sync != "fp32":
        saved += sum(FP32 * own.parameters for own in every if own.node in local)
    saves = -(-config.iterations // (config.checkpoint_every or config.iterations))
    return min(config.checkpoints_kept + 1, saves), saved


def check_memory(config: RunConfig, local: list[Needs]) -> None:
    """UserError if nodes need more than is free of this machine's memory, or of a GPU's."""
    device, remedy = config.device, memory_remedy(config)
    check_enough(f"memory for {len(local)} nodes", memory_bytes(device, local), free_memory_bytes(), remedy)
    if not device.startswith("cuda"):
        return
    import torch

    from skippipe.runtime.share import device_of

    needed_on: Counter[str] = Counter()
    for place, own in enumerate(local):
        needed_on[device_of(device, place, torch.cuda.device_count())] += own.on_gpu
    for name, on_this in needed_on.items():
        check_enough(f"memory of {name}", on_this, torch.cuda.mem_get_info(name)[0], remedy)


def memory_remedy(config: RunConfig) -> str:
    """What takes less memory and is not set yet."""
    ways = ["a smaller model", "fewer SAMPLES"]
    ways += ["recompute=true"] * (not config.recompute) + ["precision=bf16"] * (config.precision == "fp32")
    return f"{', '.join(ways[:-1])} or {ways[-1]}; skippipe plan shows each node's part"


def memory_bytes(device: str, local: list[Needs]) -> int:
    """What nodes need of this machine's own memory, wherever they compute."""
    return sum(own.beside_gpu if device.startswith("cuda") else own.on_cpu for own in local)


def free_disk_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, or of the one that it will be made in."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def free_memory_bytes() -> int:
    """What this machine can still give to processes without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def check_enough(what: str, needed: int, there: int, remedy: str) -> None:
    """UserError if less is there than is needed, in bytes."""
    if needed > there:
        raise UserError(f"{what}: {needed / 1e9:.1f} GB are needed, {there / 1e9:.1f} GB are there; try {remedy}")
