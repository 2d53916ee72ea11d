"""What a search is asked: the configuration that a user edits, checked, and the instance that solvers get."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from skippipe.costs import (
    BACKWARD_FACTOR,
    LOSS_FACTOR,
    TASK_GAP_S,
    Costs,
    activation_bytes,
    hop_seconds,
    stage_sync_bytes,
    sync_seconds,
)
from skippipe.errors import UserError
from skippipe.fields import require_positive
from skippipe.network import Matrix, find_network, load_network
from skippipe.schedule import MOST_STAGES_PAST_FRONTIER, Pipeline, Plan, Schedule
from skippipe.search.constraints import StageRules, even_walks

MOST_NODES = 10_000

Stages = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SearchConfig:
    """Everything that create_schedule.py can be told; the defaults stand at the top of that file."""

    nodes: int
    """Peers that train together."""
    network: str
    """Name of a network in configs/networks, or a YAML file of your own."""
    subset: str | None
    """Named subset of the network's locations; null: all of them."""
    locations: tuple[str, ...]
    """Location of each node; empty: round and round over the subset in the network's order."""
    stages: int
    """Parts that the model's layers are cut into."""
    stage_sizes: tuple[int, ...]
    """Nodes of each stage; they add up to nodes."""
    path_length: int
    """Stages that a partial path visits, stage 0 counted in; skip ratio = 1 - path_length / stages."""
    memory: int
    """Most microbatches that a node holds between forward and backward."""
    layers_per_stage: int
    """Decoder layers of a stage."""
    d_model: int
    """Width of the residual stream."""
    heads: int
    """Attention heads."""
    context: int
    """Tokens in a sequence."""
    samples_per_microbatch: int
    """Sequences in a microbatch."""
    microbatches_per_node: int
    """Microbatches that each stage-0 node sends in an iteration."""
    settings: tuple[str, ...]
    """Settings to search, in this order."""
    population: int
    """Assignments that the genetic algorithm keeps."""
    trials: int
    """Offspring that the genetic algorithm tries."""
    sync_slack: float
    """How many times as long as with GCMA's stages the data-parallel sync may take; more shortens the iteration."""
    conflict_nodes: int
    """Constraint sets that conflict-based search expands, each for whole rounds and for single microbatches."""
    pipeline_steps: int
    """Moves tried on paths that an origin's microbatches share."""
    path_steps: int
    """Moves tried on the path of every microbatch of a round."""
    joint_steps: int
    """Moves of each chain of the joint search."""
    robust: float
    """Relative error of the links over which the joint search takes the mean; 0 trusts them."""
    seed: int
    """Seed of every random choice."""
    time_budget_s: float
    """Seconds of search for all settings together."""

    def __post_init__(self) -> None:
        require_positive(
            self, "nodes", "stages", "path_length", "memory", "layers_per_stage", "d_model", "heads", "context",
            "samples_per_microbatch", "microbatches_per_node", "population", "trials", "time_budget_s",
            "sync_slack",
        )  # fmt: skip
        for name in ("seed", "conflict_nodes", "pipeline_steps", "path_steps", "joint_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} can't be negative, not {getattr(self, name)}")
        if self.sync_slack < 1:
            raise UserError(f"sync_slack must be at least 1, not {self.sync_slack:g}")
        if self.nodes > MOST_NODES:
            raise UserError(f"nodes is {self.nodes}; at most {MOST_NODES} are supported")
        check_shape(self)


def check_shape(config: SearchConfig) -> None:
    """Refuse stages, sizes, path length, memory and batch that can't work, with the nearest that do."""
    stages, length, sizes = config.stages, config.path_length, config.stage_sizes
    if not 2 <= length <= stages:
        raise UserError(f"path_length {length} must lie between 2 and stages = {stages}; nearest: "
                        f"path_length {min(max(length, 2), stages)}")  # fmt: skip
    if (length - 1) * MOST_STAGES_PAST_FRONTIER < stages - 1:
        least = -(-(stages - 1) // MOST_STAGES_PAST_FRONTIER) + 1
        raise UserError(f"path_length {length} never reaches stage {stages - 1}, a path skips at most 3 stages in a row"
                        f" (CC3); nearest: path_length {least}")  # fmt: skip
    nearest = f"nearest: {nearest_sizes(config.nodes, stages, length)}"
    if len(sizes) != stages:
        raise UserError(f"stage_sizes has {len(sizes)} entries for {stages} stages; {nearest}")
    if min(sizes) < 1 or sum(sizes) != config.nodes:
        raise UserError(f"stage_sizes {list(sizes)} must be positive and add up to nodes = {config.nodes}; {nearest}")
    if len(set(sizes[1:])) > 1:
        raise UserError(f"stage_sizes {list(sizes)}: every stage but 0 needs the same size, since CC3 visits them"
                        f" equally often and TC1 bounds the visits of a node; {nearest}")  # fmt: skip
    if sizes[0] * (length - 1) != sizes[1] * (stages - 1):
        raise UserError(
            f"stage_sizes {list(sizes)} break CC3 and TC1: stage-0 nodes x (path_length - 1) ="
            f" {sizes[0] * (length - 1)} must equal nodes of every other stage x (stages - 1) ="
            f" {sizes[1] * (stages - 1)}; {nearest}"
        )
    even_walks(StageRules.make(stages, length), stages, sizes[0], np.random.default_rng(0))
    if config.microbatches_per_node % config.memory:
        below = config.microbatches_per_node // config.memory * config.memory
        raise UserError(
            f"microbatches_per_node {config.microbatches_per_node} must be a multiple of memory = {config.memory}, an"
            f" origin sends whole rounds; nearest: {f'{below} or ' if below else ''}{below + config.memory}"
        )


def nearest_sizes(nodes: int, stages: int, length: int) -> str:
    """Stage sizes near these nodes that fit CC3 and TC1, as text."""
    divisor = int(np.gcd(length - 1, stages - 1))
    origins, others = (stages - 1) // divisor, (length - 1) // divisor
    unit = origins + others * (stages - 1)
    choices = [count for count in (nodes // unit, -(-nodes // unit)) if count > 0]
    return " or ".join(
        f"nodes {unit * count} with stage_sizes {[origins * count] + [others * count] * (stages - 1)}"
        for count in dict.fromkeys(choices)
    )


@dataclass(frozen=True)
class Instance:
    """One problem: nodes, links and costs, the pipeline, how many nodes each stage gets and, once chosen, which."""

    network_name: str
    locations: tuple[str, ...]
    latency_ms: Matrix
    bandwidth_gib_s: Matrix
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
        message = activation_bytes(config.d_model, config.context, config.samples_per_microbatch)
        per_layer = network.compute_seconds(locations) * config.samples_per_microbatch
        hop_s = hop_seconds(latency_ms, bandwidth, message)
        np.fill_diagonal(hop_s, 0.0)
        pipeline = Pipeline(
            stages=config.stages,
            path_length=config.path_length,
            memory=config.memory,
            layers_per_stage=config.layers_per_stage,
            d_model=config.d_model,
            heads=config.heads,
            context=config.context,
            samples_per_microbatch=config.samples_per_microbatch,
            microbatches_per_node=config.microbatches_per_node,
            activation_bytes=message,
            stage_bytes=stage_sync_bytes(config.d_model, config.layers_per_stage),
        )
        costs = Costs(per_layer * config.layers_per_stage, LOSS_FACTOR, BACKWARD_FACTOR, TASK_GAP_S, hop_s)
        return cls(network.name, locations, latency_ms, bandwidth, pipeline, costs, config.stage_sizes)

    @classmethod
    def from_schedule(cls, schedule: Schedule, setting: str) -> Instance:
        """The instance of a schedule file, with the stages of one of its settings."""
        stages = schedule.plan(setting).stages
        return cls(
            schedule.network_name, schedule.locations, schedule.latency_ms, schedule.bandwidth_gib_s,
            schedule.pipeline, schedule.costs, tuple(len(stage) for stage in stages), stages,
        )  # fmt: skip

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

    def sync_s(self, stages: Stages) -> list[float]:
        """Seconds of each stage's data-parallel sync."""
        return [sync_seconds(list(stage), self.bandwidth_gib_s, self.pipeline.stage_bytes) for stage in stages]

    def schedule(self, plans: dict[str, Plan]) -> Schedule:
        """The schedule file's content with these plans."""
        return Schedule(
            self.network_name, self.locations, self.latency_ms, self.bandwidth_gib_s, self.pipeline, self.costs, plans
        )
