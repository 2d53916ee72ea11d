"""Whether runs trained what one process trains that nobody disturbs, and when their nodes' logs say something."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection
from pathlib import Path

import torch

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.replay import LOSS, WEIGHTS, Recorded, replay, tensor_difference
from skippipe.report.metrics import read_metrics
from skippipe.report.run_folder import log_file
from skippipe.schedule import Plan


class Undisturbed:
    """The same training in one process."""

    def __init__(self, config: RunConfig, plan: Plan, samples: int, iterations: int) -> None:
        torch.set_num_threads(1)
        trainer = ReferenceTrainer(config, plan, samples, prepare(config.data))
        self.losses = [trainer.train_iteration(iteration) for iteration in range(iterations)]
        self.weights = [canonical_state(stage) for stage in trainer.stages]

    def loss_difference(self, folder: Path) -> float:
        """Largest relative difference of a run's losses."""
        losses = [line.loss for line in read_metrics(folder)]
        return max(abs(loss - own) / own for loss, own in zip(losses, self.losses, strict=True))

    def weight_differences(self, folder: Path) -> tuple[float, float]:
        """Largest differences of the last checkpoint: of a tensor as a whole, of a number over its tensor's largest."""
        tensors, numbers = [], []
        for trained, own in zip(map(canonical_state, load_stages(find_latest(folder))), self.weights, strict=True):
            for name, tensor in own.items():
                tensors.append(tensor_difference(trained[name], tensor))
                numbers.append(float((trained[name] - tensor).abs().max() / tensor.abs().max()))
        return max(tensors), max(numbers)


def replay_differences(folder: Path) -> tuple[float, float]:
    """Largest relative differences of a run's losses, and of tensors that it has saved, from a replay of its views.

    LookupError if that can tell nothing of its last weights.
    """
    torch.set_num_threads(1)
    recorded = Recorded.read(folder)
    found = list(replay(folder, recorded))
    last = recorded.metrics[-1].iteration
    if (WEIGHTS, last) not in {(one.what, one.iteration) for one in found}:
        raise LookupError(f"the replay of {folder} ends before its last weights")
    loss, tensor = (max(one.size for one in found if one.what == what) for what in (LOSS, WEIGHTS))
    return loss, tensor


def moments(folder: Path, nodes: int, text: str) -> list[float]:
    """When the logs of nodes 0 to `nodes` - 1 say something, in seconds of the epoch."""
    return [moment for node in range(nodes) for moment in moments_of(folder, node, text)]


def moments_of(folder: Path, node: int, text: str) -> list[float]:
    """When the log of one node says something, in seconds of the epoch."""
    lines = [line for line in log_file(folder, node).read_text(errors="replace").splitlines() if text in line]
    return [datetime.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp() for line in lines]


def replicas_equal(folder: Path, plan: Plan, lost: Collection[int] = ()) -> bool:
    """Whether all living replicas of each stage ended with the same weights."""
    digests = {}
    for node in plan.stage_of().keys() - set(lost):
        match = re.search(r"weights (\w+)", log_file(folder, node).read_text())
        digests[node] = match[1] if match else f"none of node {node}"
    return all(len({digests[node] for node in stage if node not in lost}) <= 1 for stage in plan.stages)
