"""The instances of the search's benchmarks: the original's, the paper's setups, and nodes strewn over a square."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skippipe.fields import build, read_yaml
from skippipe.schedule import Schedule
from skippipe.schedule.costs import Rates, hop_seconds
from skippipe.search.config import SearchConfig
from skippipe.search.problem import Instance

ROOT = Path(__file__).resolve().parent.parent
ORIGINAL = ROOT / "configs" / "schedules" / "original-20-nodes.json"
PAPER = ROOT / "configs" / "paper"
SETTINGS = ["baseline", "random", "non-ca-partial", "ca-partial"]
GIVEN, DEFAULTS = "original-20-nodes, its stages", "the original's defaults"
PAPER_NAMES = ("18-nodes-4k", "18-nodes-8k", "18-nodes-16k", "20-nodes", "42-nodes")
SCALES = {20: (6, 4), 42: (8, 6), 100: (6, 4), 300: (6, 4), 1000: (6, 4)}
"""Stages and path length for each number of nodes of the synthetic networks."""


def config_of(name: str, seed: int) -> SearchConfig:
    """The configuration of an instance by its name."""
    fields: dict[str, Any] = {"settings": SETTINGS, "seed": seed}
    if name == DEFAULTS:
        fields |= {"network": "gcp-12-as-published"}
    elif name in PAPER_NAMES:
        fields |= read_yaml(PAPER / f"search-{name}.yaml")
    elif name != GIVEN:
        nodes = int(name.split()[0])
        stages, length = SCALES[nodes]
        origins = nodes * (stages - 1) // ((stages - 1) + (length - 1) * (stages - 1))
        others = (nodes - origins) // (stages - 1)
        fields |= {"nodes": nodes, "stages": stages, "path_length": length}
        fields |= {"stage_sizes": [origins] + [others] * (stages - 1), "layers_per_stage": 1}
    return build(SearchConfig, fields, name)


def instance_of(name: str, config: SearchConfig) -> Instance:
    """The instance of a name: the original's file, a configured network or a synthetic one."""
    if name == GIVEN:
        return Instance.from_schedule(Schedule.load(ORIGINAL), "ca-partial")
    if name == DEFAULTS or name in PAPER_NAMES:
        return Instance.from_config(config)
    return synthetic(Instance.from_config(config), config.seed)


def synthetic(instance: Instance, seed: int) -> Instance:
    """The same pipeline on nodes strewn over a square: latency 1 to 150 ms by distance, 0.25 to 0.01 GiB/s."""
    rng = np.random.default_rng(seed)
    places = rng.random((instance.nodes, 2))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) / np.sqrt(2)
    latency_ms = 1 + 149 * distance
    bandwidth = np.minimum(0.25, 0.01 / np.maximum(distance, 0.01))
    hop_s = hop_seconds(latency_ms, bandwidth, instance.pipeline.activation_bytes, Rates().hop_fixed_s)
    np.fill_diagonal(hop_s, 0.0)
    return replace(
        instance,
        network_name="square",
        locations=tuple(f"place {node}" for node in range(instance.nodes)),
        latency_ms=latency_ms,
        bandwidth_gib_s=bandwidth,
        costs=replace(instance.costs, hop_s=hop_s),
    )


def peak_memory_mib() -> float:
    """Most memory that this process held (Linux; getrusage would count the process that started it too)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
