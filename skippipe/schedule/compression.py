"""Which links carry compressed messages, and what their hops cost then."""

from __future__ import annotations

import numpy as np

from skippipe.config import CompressionConfig
from skippipe.schedule.arrays import Flags
from skippipe.schedule.schedule import Schedule


def compressed_links(config: CompressionConfig, schedule: Schedule) -> Flags:
    """Whether messages from node to node are compressed, (nodes, nodes)."""
    if config.encoding == "fp32":
        return np.zeros_like(schedule.bandwidth_gib_s, dtype=bool)
    if config.below_gib_s is None:
        return np.ones_like(schedule.bandwidth_gib_s, dtype=bool)
    return schedule.bandwidth_gib_s < config.below_gib_s


def bytes_ratio(config: CompressionConfig, d_model: int) -> float:
    """Bytes of a compressed message over those of the exact one; int8 adds one fp32 scale to a row of d_model."""
    return {"fp32": 1.0, "bf16": 0.5, "int8": 0.25 + 1.0 / d_model}[config.encoding]


def with_compression(config: CompressionConfig, schedule: Schedule) -> Schedule:
    """The schedule with the hops of compressed links shortened and its expected times simulated again."""
    links = compressed_links(config, schedule)
    if not links.any():
        return schedule
    ratio = np.where(links, bytes_ratio(config, schedule.pipeline.d_model), 1.0)
    return schedule.with_costs(schedule.costs.for_compression(ratio, schedule.transfer_s), schedule.pipeline)
