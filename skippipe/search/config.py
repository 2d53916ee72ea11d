"""What a search is asked: the configuration that a user edits, every field with its default, checked at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from skippipe.config import Encoding
from skippipe.errors import UserError
from skippipe.fields import require_positive
from skippipe.schedule.costs import Queueing, Rates
from skippipe.schedule.validation import MOST_STAGES_PAST_FRONTIER
from skippipe.search.constraints import StageRules, even_walks

MOST_NODES = 10_000
POSITIVE_IF_GIVEN = ("feed_forward", "backward_factor", "loss_factor", "sync_bytes_per_parameter")


@dataclass(frozen=True)
class SearchConfig:
    """Everything that a search can be told; create_schedule.py's block repeats the defaults, to edit."""

    nodes: int = 20
    """Peers that train together."""
    network: str = "gcp-12"
    """Name of a network in configs/networks, or a YAML file of your own."""
    subset: str | None = None
    """Named subset of the network's locations; null: all of them."""
    locations: tuple[str, ...] = ()
    """Location of each node; empty: those of the subset in the network's order, again and again."""
    stages: int = 6
    """Parts that the model's layers are cut into."""
    stage_sizes: tuple[int, ...] = (5, 3, 3, 3, 3, 3)
    """Nodes of each stage; they add up to nodes."""
    path_length: int = 4
    """Stages that a partial path visits, stage 0 counted in; skip ratio = 1 - path_length / stages."""
    memory: int = 3
    """Most microbatches that a node holds between forward and backward."""
    layers_per_stage: int = 4
    """Decoder layers of a stage."""
    d_model: int = 1024
    """Width of the residual stream."""
    heads: int = 16
    """Attention heads."""
    context: int = 1024
    """Tokens in a sequence."""
    samples_per_microbatch: int = 8
    """Sequences in a microbatch."""
    microbatches_per_node: int = 6
    """Microbatches that each stage-0 node sends in an iteration."""
    feed_forward: int | None = None
    """Hidden width of a layer's feed-forward part; null: 4 x d_model."""
    vocabulary: int = 2048
    """Tokens that embedding and head know; counts if sync_head."""
    sync_head: bool = False
    """Whether the sync of stage 0 has embedding, norm and head to move, too; the original leaves them out."""
    hop_fixed_s: float | None = None
    """Seconds of a hop beside latency and transfer; null: the network's."""
    task_gap_s: float | None = None
    """Idle seconds of a node between two tasks; null: the network's."""
    backward_factor: float | None = None
    """Backward over forward; null: the network's."""
    loss_factor: float | None = None
    """Loss over forward; null: the network's factor, or its seconds."""
    sync_bytes_per_parameter: float | None = None
    """Bytes that a stage's all-reduce moves over its slowest link for each parameter; null: the network's."""
    queueing: Queueing | None = None
    """What messages wait for before they leave: none, link (those before to the same node) or uplink (all of the
    sender's); null: the network's."""
    hop_encoding: Encoding = "fp32"
    """How the run will write activations and gradients (its compression.encoding): bf16 halves a hop's bytes, int8
    quarters them."""
    sync_encoding: Encoding = "fp32"
    """How the run will write the gradients of its syncs (its compression.sync), with the same choice."""
    method: Literal["ours", "paper"] = "ours"
    """How the partial settings are searched. paper: GCMA's stages, A* and conflict-based search (with what the
    literature adds to it), no annealing; ours: stages and paths annealed on the simulation, too. baseline and random
    are the paper's either way; joint is ours."""
    settings: tuple[str, ...] = ()
    """Settings to search; empty: baseline, random, non-ca-partial, ca-partial and joint."""
    population: int = 200
    """Assignments that the genetic algorithm keeps."""
    trials: int = 8000
    """Offspring that the genetic algorithm tries."""
    sync_slack: float = 2.0
    """How many times as long as with GCMA's stages the data-parallel sync may take; more shortens the iteration."""
    constraint_sets: int = 2000
    """Constraint sets that conflict-based search expands, for paths of origins and again for paths of microbatches."""
    pipeline_steps: int = 10_000_000
    """Most moves that a chain tries on paths that an origin's microbatches share."""
    path_steps: int = 10_000_000
    """Most moves that a chain tries on the paths of a round's microbatches, and again on stages."""
    joint_steps: int = 100_000_000
    """Moves of each chain of the joint search."""
    robust: float = 0.0
    """Relative error of the links over which the joint search takes the mean; 0 trusts them."""
    chains: int | None = None
    """Annealings side by side, of stages, of paths and of joint; null: one a core, or two without a time budget."""
    seed: int = 0
    """Seed of every random choice."""
    time_budget_s: float | None = 60.0
    """Seconds of search for all settings together; null: none, the steps alone end the search, and the same seed and
    steps then give the same file, whatever the machine's load."""

    def __post_init__(self) -> None:
        require_positive(self, "nodes", "stages", "path_length", "memory", "layers_per_stage", "d_model", "heads")
        require_positive(self, "context", "samples_per_microbatch", "microbatches_per_node")
        require_positive(self, "population", "trials", "sync_slack")
        if self.chains is not None:
            require_positive(self, "chains")
        if self.time_budget_s is not None:
            require_positive(self, "time_budget_s")
        require_positive(self, "vocabulary", *(name for name in POSITIVE_IF_GIVEN if getattr(self, name) is not None))
        for name in ("hop_fixed_s", "task_gap_s"):
            if (getattr(self, name) or 0.0) < 0:
                raise UserError(f"{name} can't be negative, not {getattr(self, name)}")
        for name in ("seed", "constraint_sets", "pipeline_steps", "path_steps", "joint_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} can't be negative, not {getattr(self, name)}")
        if self.sync_slack < 1:
            raise UserError(f"sync_slack must be at least 1, not {self.sync_slack:g}")
        if self.nodes > MOST_NODES:
            raise UserError(f"nodes is {self.nodes}; at most {MOST_NODES} are supported")
        check_shape(self)

    def rates(self, network: Rates) -> Rates:
        """The rates of this search: the network's, but for those that are given here."""
        given = {name: getattr(self, name) for name in asdict(network)}
        return replace(network, **{name: value for name, value in given.items() if value is not None})


def check_shape(config: SearchConfig) -> None:
    """Refuse stages, sizes, path length, memory and batch that can't work, with the nearest that do."""
    stages, length, sizes = config.stages, config.path_length, config.stage_sizes
    if not 2 <= length <= stages:
        near = min(max(length, 2), stages)
        raise UserError(f"path_length {length} must lie between 2 and stages = {stages}; nearest: path_length {near}")
    if (length - 1) * MOST_STAGES_PAST_FRONTIER < stages - 1:
        least = -(-(stages - 1) // MOST_STAGES_PAST_FRONTIER) + 1
        raise UserError(
            f"path_length {length} never reaches stage {stages - 1}, a path skips at most 3 stages in a row (CC3);"
            f" nearest: path_length {least}"
        )
    nearest = f"nearest: {nearest_sizes(config.nodes, stages, length)}"
    if len(sizes) != stages:
        raise UserError(f"stage_sizes has {len(sizes)} entries for {stages} stages; {nearest}")
    if min(sizes) < 1 or sum(sizes) != config.nodes:
        raise UserError(f"stage_sizes {list(sizes)} must be positive and add up to nodes = {config.nodes}; {nearest}")
    if len(set(sizes[1:])) > 1:
        raise UserError(
            f"stage_sizes {list(sizes)}: every stage but 0 needs the same size, since CC3 visits them equally often and"
            f" TC1 bounds the visits of a node; {nearest}"
        )
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
