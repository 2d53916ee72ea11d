"""What each node of a run will need and do: memory, bytes and seconds, before anything is started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from skippipe.config import RunConfig
from skippipe.model.footprint import FP32, Footprint, footprint, heap_bytes
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.compression import compressed_links
from skippipe.schedule.costs import hop_ratio, sync_ratio
from skippipe.schedule.plan import Kind
from skippipe.schedule.simulate import step_arrivals, step_nodes

PROCESS_BYTES = 50_000_000
"""What a node's process has of its own beside tensors: heap, stacks, its part of what all share."""
GPU_CONTEXT_BYTES = 500_000_000
"""What a process takes of a GPU beside tensors."""
HEADER_BYTES = 64
SAVED_NUMBERS = 3
"""Numbers of a parameter in a checkpoint: weight and AdamW's two moments."""


@dataclass(frozen=True)
class Needs:
    """Of one node, in bytes if nothing else is said."""

    node: int
    stage: int
    parameters: int
    """How many."""
    state: int
    """Weights, gradient, moments, and what a compressed sync leaves out."""
    kept: int
    """Most that microbatches between forward and backward keep."""
    sent: int
    """Results of an iteration's tasks, kept on the CPU until it is committed, for heirs of lost nodes."""
    waiting: int
    """Most messages that wait for the node, on the CPU."""
    task: int
    """What the largest loss or backward needs beside."""
    ahead: int
    """What a GPU still has of the task before: it has been asked for the next one."""
    pinned: int
    """Of the machine's own memory, pinned for copies, if the node computes on a GPU: what is `sent`, what is on its way
    there and back, and the gradient; torch gives each a power of two."""
    sync: int
    """The node's own gradient, which begins a sync again, and the parts of replicas or AdamW's temporary tensors."""
    heap: int
    """What the CPU's heap takes beside tensors."""
    tasks_peak: int
    """Most while tasks run, state left out: of all above but the sync, as they come together."""
    hop_bytes: int
    """That it sends in an iteration."""
    sync_bytes: int
    """That it sends in a sync."""
    busy_s: float
    """That it computes in an iteration."""

    @property
    def on_cpu(self) -> int:
        """Most memory if the node computes on the CPU."""
        return PROCESS_BYTES + self.state + self.heap + max(self.tasks_peak, self.sent + self.sync)

    @property
    def on_gpu(self) -> int:
        """Most of a GPU's memory if the node computes there."""
        tasks = self.kept + self.task + self.ahead
        return GPU_CONTEXT_BYTES + self.state + max(tasks, FP32 * self.parameters)

    @property
    def beside_gpu(self) -> int:
        """Most memory of the machine itself if the node computes on a GPU: messages, a sync or a checkpoint."""
        copied = SAVED_NUMBERS * FP32 * self.parameters
        return PROCESS_BYTES + self.pinned + self.waiting + max(self.sync, copied)


def needs(config: RunConfig, schedule: Schedule, setting: str, vocabulary: int) -> list[Needs]:
    """Of every node of a setting, by node."""
    plan, stage_of = schedule.settings[setting], schedule.settings[setting].stage_of()
    samples = schedule.pipeline.samples_per_microbatch
    prints = [footprint(config, stage, samples, vocabulary) for stage in range(len(plan.stages))]
    waiting = most_waiting(plan, schedule)
    return [
        needs_of(config, schedule, plan, node, stage_of[node], prints[stage_of[node]], waiting[node], vocabulary)
        for node in sorted(stage_of)
    ]


def needs_of(
    config: RunConfig,
    schedule: Schedule,
    plan: Plan,
    node: int,
    stage: int,
    own: Footprint,
    waiting: int,
    vocabulary: int,
) -> Needs:
    """Of one node, on which at most so many messages wait."""
    replicas, gradient = len(plan.stages[stage]), FP32 * own.parameters
    compressed = config.compression.sync != "fp32" and replicas > 1
    arrays, links = schedule.costs.arrays, compressed_links(config.compression, schedule)
    seconds = {Kind.FORWARD: arrays.forward_s, Kind.LOSS: arrays.loss_s, Kind.BACKWARD: arrays.backward_s}
    task_bytes = {Kind.FORWARD: 0, Kind.LOSS: own.loss, Kind.BACKWARD: own.activation + own.backward}
    held = results = most_held = most = hops = 0
    order = plan.order.get(node, ())
    for task in order:
        held += task.kind is Kind.FORWARD
        most_held = max(most_held, held)
        most = max(most, held * own.kept + results * own.activation + task_bytes[task.kind])
        held -= task.kind is Kind.BACKWARD
        receiver = plan.receiver_of(node, task)
        if receiver is not None:
            results += 1
            ratio = hop_ratio(config.compression.encoding, config.model.d_model) if links[node, receiver] else 1.0
            hops += HEADER_BYTES + round(ratio * own.activation)
    others = (replicas - 1) / replicas
    samples = schedule.pipeline.samples_per_microbatch
    return Needs(
        node=node,
        stage=stage,
        parameters=own.parameters,
        state=own.state + (2 * gradient if compressed else 0),
        kept=most_held * own.kept,
        sent=results * own.activation,
        waiting=waiting * own.activation,
        task=max((task_bytes[task.kind] for task in order), default=0),
        ahead=2 * own.activation,
        pinned=(results + 2) * power_of_two(own.activation) + power_of_two(gradient),
        sync=gradient + max(round(others * gradient), own.update),
        heap=round(heap_bytes(config, own, samples, vocabulary, most_held * own.kept + results * own.activation)),
        tasks_peak=most + waiting * own.activation,
        hop_bytes=hops,
        sync_bytes=round(2 * others * gradient * sync_ratio(config.compression.sync)),
        busy_s=float(sum(seconds[task.kind][node] for task in order)),
    )


def power_of_two(size: int) -> int:
    """The least one that is not smaller."""
    return 1 << (size - 1).bit_length()


def most_waiting(plan: Plan, schedule: Schedule) -> list[int]:
    """How many messages wait at most for each node's tasks, as simulated."""
    paths, starts = plan.paths_array, plan.starts(schedule.costs)
    arrivals, nodes = step_arrivals(paths, schedule.costs, starts), step_nodes(paths)
    events: list[list[tuple[float, int]]] = [[] for _ in range(schedule.nodes)]
    for microbatch, step in np.ndindex(nodes.shape[0], nodes.shape[1] - 1):
        receiver = int(nodes[microbatch, step + 1])
        if receiver != nodes[microbatch, step]:
            # One that is taken when another comes makes room for it.
            events[receiver].append((float(arrivals[microbatch, step]), 1))
            events[receiver].append((float(starts[microbatch, step + 1]), -1))
    return [most_of(sorted(own)) for own in events]


def most_of(events: Iterable[tuple[float, int]]) -> int:
    """The largest running sum of what comes and goes in time."""
    total = most = 0
    for _, change in events:
        total += change
        most = max(most, total)
    return most
