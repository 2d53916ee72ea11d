"""A run small enough for tests: six nodes in three stages, one setting that skips and one that swaps, a small text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skippipe.schedule import Costs, Schedule
from skippipe.schedule.plan import Pipeline, make_plan

STAGES = [[0, 1], [2, 3], [4, 5]]
SKIPPING = [[0, 2], [0, 4], [0, 5], [1, 3], [1, 4], [1, 2]]
SWAPPING = [[0, 2, 4], [0, 5, 3], [1, 4, 2], [1, 3, 5]]
NODES = 6
CORPUS = "The quick brown fox jumps over the lazy dog, and number {} follows it home.\n"


def small_schedule(hop_s: float = 0.02, forward_s: float = 0.01, memory: int = 2) -> Schedule:
    """ca-partial: paths of two stages; baseline: paths of all three, two of them with stages 1 and 2 swapped."""
    generator = np.random.default_rng(1)
    hops = hop_s * generator.uniform(0.5, 1.5, (NODES, NODES))
    costs = Costs(np.full(NODES, forward_s), 0.25, 1.5, 0.13 * forward_s, hops)
    pipeline = Pipeline(
        stages=3,
        path_length=2,
        memory=memory,
        layers_per_stage=1,
        d_model=64,
        heads=4,
        context=32,
        samples_per_microbatch=2,
        microbatches_per_node=3,
        activation_bytes=4 * 64 * 32 * 2,
        stage_bytes=8 * 66_000,
    )
    sync_s = [0.05, 0.05, 0.05]
    settings = {
        name: make_plan(STAGES, np.array(paths), costs, memory, sync_s, {"solver": "by hand", "seed": 0, "seconds": 0})
        for name, paths in (("baseline", SWAPPING), ("ca-partial", SKIPPING))
    }
    return Schedule(
        network_name="small",
        locations=("here",) * NODES,
        latency_ms=np.ones((NODES, NODES)),
        bandwidth_gib_s=np.ones((NODES, NODES)),
        pipeline=pipeline,
        costs=costs,
        settings=settings,
    )


def make_workplace(folder: Path) -> None:
    """Fill a folder with the schedule, a small corpus and small.yaml, a configuration that names both."""
    small_schedule().save(folder / "schedule.json")
    (folder / "corpus").mkdir()
    for i in range(40):
        (folder / "corpus" / f"{i}.txt").write_text("".join(CORPUS.format(i * 50 + j) for j in range(50)))
    (folder / "small.yaml").write_text(
        f"schedule: {folder}/schedule.json\n"
        f"runs: {folder}/runs\n"
        "iterations: 5\n"
        "model: {context: 32}\n"
        f"data: {{source: files, paths: [{folder}/corpus], vocabulary: 300, cache: {folder}/cache}}\n"
        "emulation: {time_scale: 1.0}\n"
        "peers: {replan_seconds: 0, silence_seconds: 25}\n"
    )
