"""Seconds of a hop, forward, loss, backward and sync: the only home of cost constants (cost model: paper's code)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from skippipe.schedule.arrays import Floats

GIB = 1024**3
HOP_FIXED_S = 0.35
"""Copies between CPU and GPU at both ends of a hop, in the original's cost model."""
LOSS_FACTOR = 0.25
BACKWARD_FACTOR = 1.5
TASK_GAP_S = 0.13
SYNC_BYTES_PER_PARAMETER = 8

Seconds = TypeVar("Seconds", float, Floats)


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

    def for_compression(self, ratio: Floats, latency_ms: Floats) -> Costs:
        """The same nodes where messages have `ratio`, (nodes, nodes), of their bytes; latency and copies stay."""
        fixed = latency_ms / 1000 + HOP_FIXED_S
        return replace(self, hop_s=fixed + (self.hop_s - fixed) * ratio)

    def for_samples(self, ratio: float, latency_ms: Floats) -> Costs:
        """The same nodes with `ratio` times as many samples in a microbatch."""
        ratios = np.full_like(self.hop_s, ratio)
        return replace(self.for_compression(ratios, latency_ms), forward_s=self.forward_s * ratio)


def activation_bytes(d_model: int, context: int, samples: int) -> int:
    """Bytes of one microbatch's activation or gradient between stages, in fp32."""
    return 4 * d_model * context * samples


def hop_seconds(latency_ms: Seconds, bandwidth_gib_s: Seconds, message_bytes: int) -> Seconds:
    """Seconds that a message takes from node to node."""
    return latency_ms / 1000 + message_bytes / (bandwidth_gib_s * GIB) + HOP_FIXED_S


def layer_parameters(d_model: int, feed_forward: int | None = None) -> int:
    """Parameters of a LLaMA layer (16,779,264 at d_model 1024, feed-forward 4096)."""
    return 4 * d_model**2 + 3 * d_model * (feed_forward or 4 * d_model) + 2 * d_model


def stage_sync_bytes(d_model: int, layers: int) -> int:
    """Bytes that the data-parallel sync of a stage moves; embedding and head are left out, as in the original."""
    return SYNC_BYTES_PER_PARAMETER * layers * layer_parameters(d_model)


def sync_seconds(stage: list[int], bandwidth_gib_s: Floats, stage_bytes: int) -> float:
    """Seconds of a stage's data-parallel sync: bytes over the slowest link between its nodes, latency left out."""
    if len(stage) < 2:
        return 0.0
    rows = np.array(stage)
    among = bandwidth_gib_s[np.ix_(rows, rows)][~np.eye(len(rows), dtype=bool)]
    return float(stage_bytes / (among.min() * GIB))
