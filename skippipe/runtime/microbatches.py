"""The batches of a run's microbatches, whichever node reads them."""

from __future__ import annotations

from torch import Tensor

from skippipe.data.batches import Batches
from skippipe.runtime.job import Job
from skippipe.survival.succession import sources


class Microbatches:
    """Reads the batch of any microbatch: a node may inherit those of another."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sources = sources(job.plan)
        """Where each microbatch's batch is read: part of the data and number."""
        self.batches: dict[int, Batches] = {}
        """By part."""

    def read(self, iteration: int, microbatch: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets, (B, T) each; a microbatch has the same ones whoever reads them."""
        part, number = self.sources[microbatch]
        if part not in self.batches:
            job, origins = self.job, self.job.plan.stages[0]
            samples, context = job.schedule.pipeline.samples_per_microbatch, job.config.model.context
            self.batches[part] = Batches(job.prepared, part, len(origins), samples, context, job.config.seed)
        return self.batches[part].batch(iteration, number)
