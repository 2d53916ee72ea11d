"""Which links carry compressed messages, and what hops and syncs cost then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skippipe.config import CompressionConfig
from skippipe.schedule.arrays import Flags
from skippipe.schedule.costs import hop_ratio, sync_ratio
from skippipe.schedule.schedule import Schedule


def compressed_links(config: CompressionConfig, schedule: Schedule) -> Flags:
    """Whether messages from node to node are compressed, (nodes, nodes)."""
    if config.encoding == "fp32":
        return np.zeros_like(schedule.bandwidth_gib_s, dtype=bool)
    if config.below_gib_s is None:
        return np.ones_like(schedule.bandwidth_gib_s, dtype=bool)
    return schedule.bandwidth_gib_s < config.below_gib_s


def with_compression(config: CompressionConfig, schedule: Schedule) -> Schedule:
    """The schedule with hops and syncs as long as they are in this run, and its expected times simulated again.

    The result does not say which of its links are compressed if config.below_gib_s leaves some out.
    """
    pipeline = schedule.pipeline
    ratio = np.where(compressed_links(config, schedule), hop_ratio(config.encoding, pipeline.d_model), 1.0)
    ratio /= hop_ratio(pipeline.hop_encoding, pipeline.d_model)
    sync = sync_ratio(config.sync) / sync_ratio(pipeline.sync_encoding)
    if sync == 1.0 and (ratio == 1.0).all():
        return schedule
    settings = {
        name: replace(plan, sync_s=tuple(seconds * sync for seconds in plan.sync_s))
        for name, plan in schedule.settings.items()
    }
    costs = schedule.costs.for_compression(ratio, schedule.transfer_s)
    pipeline = replace(pipeline, hop_encoding=config.encoding, sync_encoding=config.sync)
    return replace(schedule, settings=settings).with_costs(costs, pipeline)
