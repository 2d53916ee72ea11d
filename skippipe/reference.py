"""The same iterations in one process: the yardstick of the runtime's correctness, and the convergence trainer."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from skippipe.config import RunConfig
from skippipe.data.parts import Parts, first_positions
from skippipe.data.prepared import Prepared
from skippipe.errors import DivergedError
from skippipe.model.checkpoint import Checkpoint, check_same_model, load_stage, save_stage
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.feedback import Replica, load_feedback, save_feedback
from skippipe.model.gradient_codec import GradientCodec
from skippipe.model.inference import forward
from skippipe.model.llama_folder import check_llama_folder
from skippipe.model.optimizer import StageOptimizer
from skippipe.model.stage import Stage
from skippipe.schedule import Plan
from skippipe.transport.all_reduce import PART_NUMBERS, shards

log = logging.getLogger(__name__)


class CompressedReplicas:
    """The nodes of a stage whose sync is compressed: each has a gradient of its own, and leaves out something else."""

    def __init__(self, codecs: Mapping[int, GradientCodec], numbers: int, most: int = PART_NUMBERS) -> None:
        """A codec for each node. The stage has so many parameters; a part of its gradient has at most `most`."""
        self.codecs = codecs
        self.gradients = {node: torch.zeros(numbers) for node in codecs}
        self.shards = shards(numbers, len(codecs), most)

    def zero(self) -> None:
        """Forget the gradients of the iteration before."""
        for gradient in self.gradients.values():
            gradient.zero_()

    def collect(self, node: int, gradient: torch.Tensor) -> None:
        """Add a microbatch's gradient to that of the node that it visited, and make it zero."""
        self.gradients[node] += gradient.cpu()
        gradient.zero_()

    def mean(self, visits: int) -> torch.Tensor:
        """What every node has after the sync: shards summed by their owners in fp32, in the order of ranks."""
        mean = torch.empty_like(next(iter(self.gradients.values())))
        for owner, places in zip(self.codecs, self.shards, strict=True):
            for place in places:
                for node, codec in self.codecs.items():
                    if node != owner:
                        codec.write(place.start, self.gradients[node][place])
                # What was written is now what its readers read.
                first, *others = (gradient[place] for gradient in self.gradients.values())
                total = sum(others, first.clone()) / visits
                self.codecs[owner].write(place.start, total)
                mean[place] = total
        return mean

    def commit(self) -> None:
        """The iteration counts."""
        for codec in self.codecs.values():
            codec.commit()


class ReferenceTrainer:
    """Holds every stage and sends each microbatch along its path, as the peers do (design: what an iteration is)."""

    def __init__(self, config: RunConfig, plan: Plan, samples: int, prepared: Prepared) -> None:
        """`samples` sequences make a microbatch; weights and batches are those of a run with this configuration."""
        self.config = config
        self.prepared = prepared
        self.dropped_in_a_row = 0
        self.gradient_norm = 0.0
        """Of the last iteration, over all stages and before it is clipped."""
        if config.model.init_from is not None:
            check_llama_folder(config.model, len(plan.stages), prepared.vocabulary)
        computing = config.precision, config.recompute, config.compile
        self.stages = [
            Stage(config.model, stage, prepared.vocabulary, config.seed, *computing).to(config.device)
            for stage in range(len(plan.stages))
        ]
        self.optimizers = [StageOptimizer(stage, config.optimizer, config.iterations) for stage in self.stages]
        self.codec_of: dict[tuple[int, int], GradientCodec] = {}
        """By stage and node, if compression.sync asks for it."""
        self.take_up(plan)
        origins = plan.stages[0]
        self.sources = [(origins.index(path[0]), plan.own_number(m)) for m, path in enumerate(plan.paths)]
        """Part and number of the batch that each microbatch has, whatever plan is taken up later."""
        numbers = [plan.sends[origin] for origin in origins]
        self.parts = Parts(prepared, numbers, samples, config.model.context, config.seed)
        self.parts.begin(0, first_positions(prepared, len(origins)))
        self.device = torch.device(config.device)

    def take_up(self, plan: Plan) -> None:
        """Go on along another plan of the same microbatches and stages; whoever is left out forgets everything."""
        self.plan, self.stage_of = plan, plan.stage_of()
        self.compressed: dict[int, CompressedReplicas] = {}
        """By stage, if compression.sync asks for it."""
        if (sync := self.config.compression.sync) == "fp32":
            return
        former, self.codec_of = self.codec_of, {}
        for stage, nodes in enumerate(plan.stages):
            numbers = len(self.optimizers[stage].flat)
            codecs = {node: former.get((stage, node)) or GradientCodec(sync, numbers) for node in nodes}
            for node, codec in codecs.items():
                codec.regroup()
                self.codec_of[stage, node] = codec
            if len(nodes) > 1:
                self.compressed[stage] = CompressedReplicas(codecs, numbers)

    def train_iteration(self, iteration: int) -> float:
        """Run one iteration, optimizer step included, and return the mean loss over its microbatches (nats a token).

        If a number is not finite, nothing is updated; DivergedError after optimizer.dropped_in_a_row such iterations.
        """
        for optimizer in self.optimizers:
            optimizer.zero()
        for replicas in self.compressed.values():
            replicas.zero()
        total = 0.0
        for microbatch, path in enumerate(self.plan.paths):
            tokens_BT, targets_BT = self.parts.batch(iteration, *self.sources[microbatch])
            loss = self.path_loss(
                [self.stage_of[node] for node in path], tokens_BT.to(self.device), targets_BT.to(self.device)
            )
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            for node in path:
                if (stage := self.stage_of[node]) in self.compressed:
                    self.compressed[stage].collect(node, self.optimizers[stage].flat)
        self.parts.go_on(self.parts.ends())
        self.average()
        squared_norm = sum(optimizer.squared_norm() for optimizer in self.optimizers)
        self.gradient_norm = squared_norm**0.5
        if math.isfinite(total) and math.isfinite(squared_norm):
            self.dropped_in_a_row = 0
            for optimizer in self.optimizers:
                optimizer.step(iteration, squared_norm)
            for replicas in self.compressed.values():
                replicas.commit()
        else:
            self.drop(iteration)
        return total / len(self.plan.paths)

    def average(self) -> None:
        """Turn every stage's sum over the microbatches that visited it into their mean, as its sync does."""
        for stage, count in enumerate(self.plan.stage_visits()):
            # Nobody visits a stage that is lost.
            visits = max(1, count)
            if stage in self.compressed:
                self.optimizers[stage].flat.copy_(self.compressed[stage].mean(visits))
            else:
                self.optimizers[stage].average(visits)

    def drop(self, iteration: int) -> None:
        """Leave weights and optimizer as they are; DivergedError if that happened too often in a row."""
        self.dropped_in_a_row += 1
        log.warning("iteration %d dropped: its loss or gradient was not finite", iteration)
        if self.dropped_in_a_row == self.config.optimizer.dropped_in_a_row:
            raise DivergedError(f"the last {self.dropped_in_a_row} iterations were dropped")

    def path_loss(self, visited: list[int], tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """Loss of a batch that visits these stages in this order; stage 0 comes first and computes the loss."""
        return self.stages[0].loss(forward(self.stages, tuple(visited), tokens_BT), targets_BT)

    def save(self, run: Path, meta: Meta) -> None:
        """Save every stage into a checkpoint of the run, and where the text goes on, which `meta` need not say."""
        meta = replace(meta, **self.parts.place(meta.iteration))
        for stage, optimizer in zip(self.stages, self.optimizers, strict=True):
            save_stage(run, meta, stage, optimizer, self.prepared.tokenizer)
        for replica, codec in self.codecs():
            save_feedback(run, meta, replica, codec.left_out)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same model; the next iteration is checkpoint.meta.iteration."""
        check_same_model(checkpoint, self.config, len(self.stages), self.prepared.vocabulary)
        meta, parts = checkpoint.meta, len(self.parts.numbers)
        self.parts.begin(meta.iteration, first_positions(self.prepared, parts, meta.text, meta.positions))
        for stage, optimizer in zip(self.stages, self.optimizers, strict=True):
            load_stage(checkpoint, stage, optimizer)
        for replica, codec in self.codecs():
            load_feedback(checkpoint, self.config, replica, codec.left_out)

    def codecs(self) -> Iterator[tuple[Replica, GradientCodec]]:
        """Every node whose sync is compressed, and what it has left out."""
        for stage, replicas in self.compressed.items():
            for node, codec in replicas.codecs.items():
                yield Replica(stage, node, self.plan.stages[stage]), codec
