"""The same iterations in one process: the yardstick of the runtime's correctness, and the convergence trainer."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch

from skippipe.config import RunConfig
from skippipe.data.batches import Batches, Prepared
from skippipe.errors import DivergedError
from skippipe.model.checkpoint import Checkpoint, check_same_model, load_stage, save_stage
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.inference import forward
from skippipe.model.llama_folder import check_llama_folder
from skippipe.model.optimizer import StageOptimizer
from skippipe.model.stage import Stage
from skippipe.schedule import Plan

log = logging.getLogger(__name__)


class ReferenceTrainer:
    """Holds every stage and sends each microbatch along its path, as the peers do (design: what an iteration is)."""

    def __init__(self, config: RunConfig, plan: Plan, samples: int, prepared: Prepared, bf16: bool = False) -> None:
        """`samples` sequences make a microbatch; weights and batches are those of a run with this configuration.

        `bf16` computes in bfloat16 where torch's autocast does; weights, gradients and optimizer stay fp32.
        """
        self.config = config
        self.prepared = prepared
        self.bf16 = bf16
        self.plan = plan
        self.dropped_in_a_row = 0
        self.stage_of = plan.stage_of()
        if config.model.init_from is not None:
            check_llama_folder(config.model, len(plan.stages), prepared.vocabulary)
        self.stages = [
            Stage(config.model, stage, prepared.vocabulary, config.seed).to(config.device)
            for stage in range(len(plan.stages))
        ]
        self.optimizers = [StageOptimizer(stage, config.optimizer) for stage in self.stages]
        origins = plan.stages[0]
        self.batches = {
            node: Batches(prepared, part, len(origins), samples, config.model.context, config.seed)
            for part, node in enumerate(origins)
        }
        self.device = torch.device(config.device)

    def train_iteration(self, iteration: int) -> float:
        """Run one iteration, optimizer step included, and return the mean loss over its microbatches (nats a token).

        If a number is not finite, nothing is updated; DivergedError after optimizer.dropped_in_a_row such iterations.
        """
        for optimizer in self.optimizers:
            optimizer.zero()
        total = 0.0
        for microbatch, path in enumerate(self.plan.paths):
            tokens_BT, targets_BT = self.batches[path[0]].batch(iteration, self.plan.own_number(microbatch))
            loss = self.path_loss(
                [self.stage_of[node] for node in path], tokens_BT.to(self.device), targets_BT.to(self.device)
            )
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        visits = self.plan.stage_visits()
        for optimizer, count in zip(self.optimizers, visits, strict=True):
            optimizer.average(count)
        squared_norm = sum(optimizer.squared_norm() for optimizer in self.optimizers)
        if math.isfinite(total) and math.isfinite(squared_norm):
            self.dropped_in_a_row = 0
            for optimizer in self.optimizers:
                optimizer.step(iteration, squared_norm)
        else:
            self.drop(iteration)
        return total / len(self.plan.paths)

    def drop(self, iteration: int) -> None:
        """Leave weights and optimizer as they are; DivergedError if that happened too often in a row."""
        self.dropped_in_a_row += 1
        log.warning("iteration %d dropped: its loss or gradient was not finite", iteration)
        if self.dropped_in_a_row == self.config.optimizer.dropped_in_a_row:
            raise DivergedError(f"the last {self.dropped_in_a_row} iterations were dropped")

    def path_loss(self, visited: list[int], tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """Loss of a batch that visits these stages in this order; stage 0 comes first and computes the loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.stages[0].loss(forward(self.stages, tuple(visited), tokens_BT), targets_BT)

    def save(self, run: Path, meta: Meta) -> None:
        """Save every stage into a checkpoint of the run."""
        for stage, optimizer in zip(self.stages, self.optimizers, strict=True):
            save_stage(run, meta, stage, optimizer, self.prepared.tokenizer)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same model; the next iteration is checkpoint.meta.iteration."""
        check_same_model(checkpoint, self.config, len(self.stages), self.prepared.vocabulary)
        for stage, optimizer in zip(self.stages, self.optimizers, strict=True):
            load_stage(checkpoint, stage, optimizer)
