"""The problem that solvers get: nodes, links, costs and pipeline, with or without stages chosen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from skippipe.errors import UserError
from skippipe.schedule import Costs, Plan, Schedule
from skippipe.schedule.arrays import Floats
from skippipe.schedule.costs import (
    Rates,
    activation_bytes,
    head_parameters,
    hop_seconds,
    layer_parameters,
    pair_sync_seconds,
    sync_bytes,
    sync_seconds,
    transfer_seconds,
)
from skippipe.schedule.network import find_network, load_network
from skippipe.schedule.plan import Pipeline
from skippipe.search.config import SearchConfig
from skippipe.search.constraints import StageRules

Stages = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Instance:
    """One problem: nodes, links and costs, the pipeline, how many nodes each stage gets and, once chosen, which."""

    network_name: str
    locations: tuple[str, ...]
    latency_ms: Floats
    bandwidth_gib_s: Floats
    pipeline: Pipeline
    costs: Costs
    stage_sizes: tuple[int, ...]
    stages: Stages | None = None
    """Nodes of each stage; None before the assignment."""
    rules: StageRules = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", StageRules.make(self.pipeline.stages, self.pipeline.path_length))

    @classmethod
    def from_config(cls, config: SearchConfig) -> Instance:
        """Read the network and work out every cost; UserError for an unknown location or a missing link."""
        network = load_network(find_network(config.network))
        locations = config.locations or network.spread(config.nodes, config.subset)
        if len(locations) != config.nodes:
            raise UserError(f"locations has {len(locations)} entries for nodes = {config.nodes}")
        latency_ms, bandwidth = network.between(locations)
        rates = config.rates(network.rates)
        pipeline = pipeline_of(config, rates)
        forward_s = network.compute_seconds(locations) * config.samples_per_microbatch * config.layers_per_stage
        # A factor that the search is given counts more than the network's seconds.
        loss_s = network.loss_seconds(locations) if config.loss_factor is None else None
        if loss_s is not None:
            loss_s = loss_s * config.samples_per_microbatch
        hop_s = hop_seconds(latency_ms, bandwidth, pipeline.hop_bytes, rates.hop_fixed_s)
        np.fill_diagonal(hop_s, 0.0)
        costs = Costs.of_rates(forward_s, rates, hop_s, loss_s).with_queueing(
            config.queueing or network.queueing, transfer_seconds(pipeline.hop_bytes, bandwidth)
        )
        return cls(network.name, locations, latency_ms, bandwidth, pipeline, costs, config.stage_sizes)

    @classmethod
    def from_schedule(cls, schedule: Schedule, setting: str) -> Instance:
        """The instance of a schedule file, with the stages of one of its settings."""
        stages = schedule.plan(setting).stages
        return cls(
            network_name=schedule.network_name,
            locations=schedule.locations,
            latency_ms=schedule.latency_ms,
            bandwidth_gib_s=schedule.bandwidth_gib_s,
            pipeline=schedule.pipeline,
            costs=schedule.costs,
            stage_sizes=tuple(len(stage) for stage in stages),
            stages=stages,
        )

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.locations)

    @property
    def fixed_stages(self) -> Stages:
        """The stages; only for solvers that run after the assignment."""
        assert self.stages is not None, "the assignment comes first"
        return self.stages

    def with_stages(self, stages: Stages) -> Instance:
        """The same instance once nodes have their stages."""
        return replace(self, stages=stages)

    @property
    def pair_sync_s(self) -> Floats:
        """Seconds of the data-parallel sync of each stage whose slowest link is this one, (stages, nodes, nodes)."""
        return np.array([pair_sync_seconds(self.bandwidth_gib_s, moved) for moved in self.pipeline.sync_bytes])

    def sync_s(self, stages: Stages) -> list[float]:
        """Seconds of each stage's data-parallel sync."""
        moved = self.pipeline.sync_bytes
        return [sync_seconds(list(stages[i]), self.bandwidth_gib_s, moved[i]) for i in range(len(stages))]

    def schedule(self, plans: dict[str, Plan]) -> Schedule:
        """The schedule file's content with these plans."""
        return Schedule(
            self.network_name, self.locations, self.latency_ms, self.bandwidth_gib_s, self.pipeline, self.costs, plans
        )


def pipeline_of(config: SearchConfig, rates: Rates) -> Pipeline:
    """The model and batch that a configuration is for."""
    layer, head = (
        layer_parameters(config.d_model, config.feed_forward),
        head_parameters(config.d_model, config.vocabulary),
    )
    moved = rates.sync_bytes_per_parameter
    return Pipeline(
        stages=config.stages,
        path_length=config.path_length,
        memory=config.memory,
        layers_per_stage=config.layers_per_stage,
        d_model=config.d_model,
        heads=config.heads,
        context=config.context,
        samples_per_microbatch=config.samples_per_microbatch,
        microbatches_per_node=config.microbatches_per_node,
        activation_bytes=activation_bytes(config.d_model, config.context, config.samples_per_microbatch),
        stage_bytes=sync_bytes(config.layers_per_stage * layer, moved),
        feed_forward=None if config.feed_forward == 4 * config.d_model else config.feed_forward,
        head_bytes=sync_bytes(head, moved) if config.sync_head else None,
        hop_encoding=config.hop_encoding,
        sync_encoding=config.sync_encoding,
    )
