"""Seconds of a hop, forward, loss, backward and sync: the only home of cost constants (cost model: paper's code)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

from skippipe.schedule.arrays import Floats

GIB = 1024**3
HOP_FIXED_S = 0.35
"""Copies between CPU and GPU at both ends of a hop, in the original's cost model."""
LOSS_FACTOR = 0.25
BACKWARD_FACTOR = 1.5
TASK_GAP_S = 0.13
SYNC_BYTES_PER_PARAMETER = 8

Quantity = TypeVar("Quantity", float, Floats)


class CostArrays(NamedTuple):
    """What tasks and hops take, in seconds, as the simulations and the compiled searches read it."""

    forward_s: Floats
    """Forward of one microbatch through one stage, (nodes,)."""
    loss_s: Floats
    """Loss of one microbatch, (nodes,)."""
    backward_s: Floats
    """Backward of one microbatch through one stage, (nodes,)."""
    hop_s: Floats
    """Activation or gradient of one microbatch from node to node, (nodes, nodes)."""
    gap_s: float
    """Idle time of a node between two tasks."""


@dataclass(frozen=True)
class Costs:
    """What tasks and hops take on the nodes of a schedule, in seconds."""

    forward_s: Floats
    """Forward of one microbatch through one stage, (nodes,)."""
    loss_factor: float
    """Loss at the origin over forward."""
    backward_factor: float
    """Backward over forward."""
    task_gap_s: float
    """Idle time of a node between two tasks."""
    hop_s: Floats
    """Activation or gradient of one microbatch from node to node, (nodes, nodes)."""

    @property
    def loss_s(self) -> Floats:
        """Loss of one microbatch, (nodes,)."""
        return self.forward_s * self.loss_factor

    @property
    def backward_s(self) -> Floats:
        """Backward of one microbatch through one stage, (nodes,)."""
        return self.forward_s * self.backward_factor

    @cached_property
    def arrays(self) -> CostArrays:
        """The same for the simulations and the compiled searches."""
        return CostArrays(self.forward_s, self.loss_s, self.backward_s, self.hop_s, self.task_gap_s)

    def for_compression(self, ratio: Floats, latency_ms: Floats) -> Costs:
        """The same nodes if messages have `ratio`, (nodes, nodes), of their bytes; latency and copies stay."""
        fixed = latency_ms / 1000 + HOP_FIXED_S
        return replace(self, hop_s=fixed + (self.hop_s - fixed) * ratio)

    def for_samples(self, ratio: float, latency_ms: Floats) -> Costs:
        """The same nodes with `ratio` times as many samples in a microbatch."""
        ratios = np.full_like(self.hop_s, ratio)
        return replace(self.for_compression(ratios, latency_ms), forward_s=self.forward_s * ratio)


def activation_bytes(d_model: int, context: int, samples: int) -> int:
    """Bytes of one microbatch's activation or gradient between stages, in fp32."""
    return 4 * d_model * context * samples


def transfer_seconds(message_bytes: int, bandwidth_gib_s: Quantity) -> Quantity:
    """Seconds that bytes take over a link of this bandwidth, latency left out."""
    return message_bytes / (bandwidth_gib_s * GIB)


def gib_per_second(message_bytes: int, seconds: float) -> float:
    """Bandwidth in GiB/s of a link that carries the bytes in this time."""
    return message_bytes / seconds / GIB


def hop_seconds(latency_ms: Quantity, bandwidth_gib_s: Quantity, message_bytes: int) -> Quantity:
    """Seconds that a message takes from node to node."""
    return latency_ms / 1000 + transfer_seconds(message_bytes, bandwidth_gib_s) + HOP_FIXED_S


def layer_parameters(d_model: int, feed_forward: int | None = None) -> int:
    """Parameters of a LLaMA layer (16,779,264 at d_model 1024, feed-forward 4096)."""
    return 4 * d_model**2 + 3 * d_model * (feed_forward or 4 * d_model) + 2 * d_model


def stage_sync_bytes(d_model: int, layers: int) -> int:
    """Bytes that the data-parallel sync of a stage moves; embedding and head are left out, as in the original."""
    return SYNC_BYTES_PER_PARAMETER * layers * layer_parameters(d_model)


def pair_sync_seconds(bandwidth_gib_s: Floats, stage_bytes: int) -> Floats:
    """Seconds of the data-parallel sync of a stage whose slowest link is this one, (nodes, nodes), 0 on the diagonal.

    The sync moves its bytes over the slowest link, in either direction, between two nodes of the stage; latency is
    left out (cost model: paper's code).
    """
    seconds = transfer_seconds(stage_bytes, np.minimum(bandwidth_gib_s, bandwidth_gib_s.T))
    np.fill_diagonal(seconds, 0.0)
    return seconds


def sync_seconds(stage: list[int], bandwidth_gib_s: Floats, stage_bytes: int) -> float:
    """Seconds of the data-parallel sync of a stage's nodes; a single one has nothing to sync."""
    if len(stage) < 2:
        return 0.0
    rows = np.array(stage)
    return float(pair_sync_seconds(bandwidth_gib_s[np.ix_(rows, rows)], stage_bytes).max())
