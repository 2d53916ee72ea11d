"""`python -m tests.end_to_end.poisoned POISON NODE ITERATIONS run ...`: skippipe, with one node that goes wrong."""

from __future__ import annotations

import sys
from typing import Any

import torch

from skippipe.__main__ import main
from skippipe.runtime.executor import Executor, IterationRecord
from skippipe.runtime.soundness import Poison
from skippipe.schedule.plan import Kind, Task


def poison_a_node(poison: Poison, node: int, iterations: set[int]) -> None:
    """Let a node's computation give nan in these iterations: patched before the launcher forks."""
    compute, run = Executor.compute, Executor.run
    wanted = {Poison.ACTIVATION: Kind.FORWARD, Poison.LOSS: Kind.LOSS, Poison.GRADIENT: Kind.BACKWARD}

    def poisoned(self: Executor, task: Task, tensor: Any) -> Any:
        computed = compute(self, task, tensor)
        if self.node == node and self.iteration in iterations and wanted.get(poison) is task.kind:
            if poison is Poison.LOSS:
                return computed._replace(loss=torch.tensor(float("inf")))
            if computed.result is not None:
                return computed._replace(result=torch.full_like(computed.result, float("nan")))
        return computed

    def whole(self: Executor) -> IterationRecord:
        record, iteration = run(self), self.iteration
        if self.node == node and iteration in iterations and poison in (Poison.WEIGHT_GRADIENT, Poison.SUM):
            gradient = next(self.stage.parameters()).grad
            # Two replicas of the largest number make an infinite sum of finite parts.
            gradient.fill_(float("inf") if poison is Poison.WEIGHT_GRADIENT else 3e38)
        if poison is Poison.SUM and iteration in iterations and self.node == node + 1:
            next(self.stage.parameters()).grad.fill_(3e38)
        return record

    Executor.compute, Executor.run = poisoned, whole  # type: ignore[method-assign]


if __name__ == "__main__":
    poison_a_node(Poison[sys.argv[1]], int(sys.argv[2]), set(map(int, sys.argv[3].split(","))))
    sys.exit(main(sys.argv[4:]))
