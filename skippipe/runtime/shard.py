"""What a node holds of the model: one stage, its optimizer, and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass

from skippipe.model.gradient_codec import GradientCodec
from skippipe.model.optimizer import StageOptimizer
from skippipe.model.stage import Stage
from skippipe.runtime.full_model import FullModel
from skippipe.runtime.job import Job


@dataclass
class Shard:
    """One stage as a node holds it."""

    index: int
    stage: Stage
    optimizer: StageOptimizer
    full_model: FullModel | None
    """The stage's part of the validation, if there is any."""
    codec: GradientCodec | None = None
    """How gradients are written, if they are compressed and the stage has replicas."""

    @classmethod
    def build(cls, job: Job, index: int) -> Shard:
        """A stage as the run begins with it."""
        config = job.config
        computing = config.precision, config.recompute, config.compile
        stage = Stage(config.model, index, job.prepared.vocabulary, config.seed, *computing).to(job.device)
        samples = job.schedule.pipeline.samples_per_microbatch
        full_model = FullModel(stage, job.prepared, samples) if config.evaluate_every else None
        return cls(index, stage, StageOptimizer(stage, config.optimizer, config.iterations), full_model)
