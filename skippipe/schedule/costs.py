"""Seconds of a hop, forward, loss, backward and sync: the only home of the cost model's formulas (paper's code)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from skippipe.config import SYNC_BLOCK, Encoding
from skippipe.schedule.arrays import Floats

GIB = 1024**3
FASTEST_GIB_S = 64.0
"""What memory carries; a link whose bytes seem to take no time gets it."""

Quantity = TypeVar("Quantity", float, Floats)


@dataclass(frozen=True)
class Rates:
    """What a network's machines and links take beside forward, latency and bandwidth.

    A network file says it (`skippipe profile` measures it); what it leaves out is as on the original's GPUs.
    """

    hop_fixed_s: float = 0.35
    """Seconds of a hop beside latency and transfer, such as copies between CPU and GPU at both ends."""
    task_gap_s: float = 0.13
    """Idle seconds of a node between two tasks."""
    backward_factor: float = 1.5
    """Backward over forward."""
    loss_factor: float = 0.25
    """Loss at the origin over forward, unless the network gives the loss's own seconds."""
    sync_bytes_per_parameter: float = 8.0
    """Bytes that a stage's all-reduce moves over its slowest link for each parameter."""


Queueing = Literal["none", "link", "uplink"]
"""What a message waits for before its bytes can leave, beside the end of its sender's task.

none: nothing; any number of messages share a link without slowing each other down (paper). link: the messages before it
to the same node; a connection carries one after the other. uplink: those too, and all others of its sender, whose one
uplink is as fast as the fastest of its links.
"""


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
    link_busy_s: Floats
    """How long a message keeps its link from carrying the next one to the same node, (nodes, nodes)."""
    uplink_busy_s: Floats
    """How long a message to each node keeps its sender's uplink from the next one, (nodes, nodes)."""


@dataclass(frozen=True)
class Costs:
    """What tasks and hops take on the nodes of a schedule, in seconds."""

    forward_s: Floats
    """Forward of one microbatch through one stage, (nodes,)."""
    loss_factor: float
    """Loss at the origin over forward; of all nodes together if they have a loss_s of their own."""
    backward_factor: float
    """Backward over forward."""
    task_gap_s: float
    """Idle time of a node between two tasks."""
    hop_s: Floats
    """Activation or gradient of one microbatch from node to node, (nodes, nodes)."""
    measured_loss_s: Floats | None = None
    """Loss of one microbatch, (nodes,), if it is no fixed share of forward; its factor is then their ratio."""
    link_busy_s: Floats | None = None
    """How long a message keeps its link from carrying the next one, (nodes, nodes); None: not at all."""
    uplink_busy_s: Floats | None = None
    """How long a message to each node keeps its sender's uplink from the next one, (nodes, nodes); None: not at all."""

    @classmethod
    def of_rates(cls, forward_s: Floats, rates: Rates, hop_s: Floats, loss_s: Floats | None = None) -> Costs:
        """Costs with a network's rates; loss_s, (nodes,), are the loss's own seconds, if there are any."""
        factor = rates.loss_factor if loss_s is None else float(loss_s.sum() / forward_s.sum())
        if loss_s is not None and np.allclose(forward_s * factor, loss_s, rtol=1e-12, atol=0.0):
            loss_s = None
        return cls(forward_s, factor, rates.backward_factor, rates.task_gap_s, hop_s, loss_s)

    @property
    def loss_s(self) -> Floats:
        """Loss of one microbatch, (nodes,)."""
        return self.forward_s * self.loss_factor if self.measured_loss_s is None else self.measured_loss_s

    @property
    def backward_s(self) -> Floats:
        """Backward of one microbatch through one stage, (nodes,)."""
        return self.forward_s * self.backward_factor

    @cached_property
    def arrays(self) -> CostArrays:
        """The same for the simulations and the compiled searches."""
        never = np.zeros_like(self.hop_s)
        link_busy_s = never if self.link_busy_s is None else self.link_busy_s
        uplink_busy_s = never if self.uplink_busy_s is None else self.uplink_busy_s
        times = self.forward_s, self.loss_s, self.backward_s, self.hop_s
        return CostArrays(*times, self.task_gap_s, link_busy_s, uplink_busy_s)

    def with_queueing(self, queueing: Queueing, transfer_s: Floats) -> Costs:
        """The same costs if messages wait so; transfer_s, (nodes, nodes), is what their bytes take on each link."""
        if queueing == "none":
            return self
        link_busy_s = np.where(np.eye(len(transfer_s), dtype=bool), 0.0, transfer_s)
        if queueing == "link":
            return replace(self, link_busy_s=link_busy_s)
        others = np.where(np.eye(len(transfer_s), dtype=bool), np.inf, transfer_s)
        uplink_busy_s = np.where(link_busy_s > 0, others.min(axis=1, keepdims=True), 0.0)
        return replace(self, link_busy_s=link_busy_s, uplink_busy_s=uplink_busy_s)

    def for_compression(self, ratio: Floats, transfer_s: Floats) -> Costs:
        """The same nodes if messages have `ratio`, (nodes, nodes), of their bytes; latency and copies stay.

        transfer_s, (nodes, nodes), is what the bytes take in each hop now.
        """
        return replace(
            self,
            hop_s=self.hop_s + (ratio - 1) * np.minimum(transfer_s, self.hop_s),
            link_busy_s=None if self.link_busy_s is None else self.link_busy_s * ratio,
            uplink_busy_s=None if self.uplink_busy_s is None else self.uplink_busy_s * ratio,
        )

    def for_samples(self, ratio: float, transfer_s: Floats) -> Costs:
        """The same nodes with `ratio` times as many samples in a microbatch."""
        shorter = self.for_compression(np.full_like(self.hop_s, ratio), transfer_s)
        loss_s = None if self.measured_loss_s is None else self.measured_loss_s * ratio
        return replace(shorter, forward_s=self.forward_s * ratio, measured_loss_s=loss_s)


def activation_bytes(d_model: int, context: int, samples: int) -> int:
    """Bytes of one microbatch's activation or gradient between stages, in fp32."""
    return 4 * d_model * context * samples


def hop_ratio(encoding: Encoding, d_model: int) -> float:
    """Bytes of an encoded activation over fp32's; int8 adds one fp32 scale to a row of d_model."""
    return {"fp32": 1.0, "bf16": 0.5, "int8": 0.25 + 1.0 / d_model}[encoding]


def sync_ratio(encoding: Encoding) -> float:
    """Bytes of an encoded sync over fp32's; int8 adds one fp32 scale to a block of SYNC_BLOCK numbers."""
    return {"fp32": 1.0, "bf16": 0.5, "int8": 0.25 + 1.0 / SYNC_BLOCK}[encoding]


def transfer_seconds(message_bytes: float, bandwidth_gib_s: Quantity) -> Quantity:
    """Seconds that bytes take over a link of this bandwidth, latency left out."""
    return message_bytes / (bandwidth_gib_s * GIB)


def gib_per_second(message_bytes: int, seconds: float) -> float:
    """Bandwidth in GiB/s of a link that carries the bytes in this time."""
    return message_bytes / seconds / GIB


def hop_seconds(latency_ms: Quantity, bandwidth_gib_s: Quantity, message_bytes: float, fixed_s: float) -> Quantity:
    """Seconds that a message takes from node to node; fixed_s is Rates.hop_fixed_s."""
    return latency_ms / 1000 + transfer_seconds(message_bytes, bandwidth_gib_s) + fixed_s


def fixed_seconds(seconds: float, latency_ms: float, bandwidth_gib_s: float, message_bytes: int) -> float:
    """What a hop that took `seconds` took beside latency and transfer, at least 0: Rates.hop_fixed_s."""
    return max(0.0, seconds - hop_seconds(latency_ms, bandwidth_gib_s, message_bytes, 0.0))


def hop_bandwidth(seconds: float, latency_ms: float, fixed_s: float, message_bytes: int) -> float:
    """Bandwidth in GiB/s with which a hop that took `seconds` takes just that; no more than FASTEST_GIB_S."""
    transfer_s = seconds - latency_ms / 1000 - fixed_s
    return gib_per_second(message_bytes, max(transfer_s, transfer_seconds(message_bytes, FASTEST_GIB_S)))


def bytes_per_parameter(seconds: float, bandwidth_gib_s: float, parameters: int) -> float:
    """Rates.sync_bytes_per_parameter of an all-reduce that took `seconds` over a slowest link of this bandwidth."""
    return seconds * bandwidth_gib_s * GIB / parameters


def layer_parameters(d_model: int, feed_forward: int | None = None) -> int:
    """Parameters of a LLaMA layer (16,779,264 at d_model 1024, feed-forward 4096)."""
    return 4 * d_model**2 + 3 * d_model * (feed_forward or 4 * d_model) + 2 * d_model


def head_parameters(d_model: int, vocabulary: int) -> int:
    """Parameters of embedding, final norm and output head."""
    return 2 * vocabulary * d_model + d_model


def sync_bytes(parameters: int, bytes_per_parameter: float) -> int:
    """Bytes that the data-parallel sync of these parameters moves in fp32 (Rates.sync_bytes_per_parameter)."""
    return round(bytes_per_parameter * parameters)


def pair_sync_seconds(bandwidth_gib_s: Floats, stage_bytes: float) -> Floats:
    """Seconds of the data-parallel sync of a stage whose slowest link is this one, (nodes, nodes), 0 on the diagonal.

    The sync moves its bytes over the slowest link, in either direction, between two nodes of the stage; latency is
    left out (cost model: paper's code).
    """
    seconds = transfer_seconds(stage_bytes, np.minimum(bandwidth_gib_s, bandwidth_gib_s.T))
    np.fill_diagonal(seconds, 0.0)
    return seconds


def sync_seconds(stage: list[int], bandwidth_gib_s: Floats, stage_bytes: float) -> float:
    """Seconds of the data-parallel sync of a stage's nodes; a single one has nothing to sync."""
    if len(stage) < 2:
        return 0.0
    rows = np.array(stage)
    return float(pair_sync_seconds(bandwidth_gib_s[np.ix_(rows, rows)], stage_bytes).max())
