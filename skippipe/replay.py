"""A run again in one process, along the paths that its views name, compared with what it measured and saved."""

from __future__ import annotations

import itertools
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from skippipe.config import RunConfig
from skippipe.data.batches import prepare
from skippipe.errors import UserError
from skippipe.model.checkpoint import Checkpoint, done_iterations, folders_in, read_tensors, stage_file
from skippipe.model.parts import Part, read_part
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.report.metrics import METRICS, IterationMetrics, read_metrics
from skippipe.report.run_folder import read_config
from skippipe.report.views import FIRST_RESTORED, RunView, read_views, view_of

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Largest relative difference that fp32 rounding explains in some dozens of iterations."""
LOSS, NORM, WEIGHTS = "loss", "gradient norm", "weights"


@dataclass(frozen=True)
class Difference:
    """Of one figure of a run from the same of its replay, relative to the latter."""

    what: str
    """loss or gradient norm of the iteration, or the weights after it."""
    iteration: int
    view: int
    """That the iteration was done in."""
    size: float
    """Of weights the length of the difference over the tensor's, the largest of all; inf if one is not finite."""


@dataclass(frozen=True)
class Recorded:
    """What a run has left of itself."""

    config: RunConfig
    views: list[RunView]
    metrics: list[IterationMetrics]
    """A line for each iteration in turn."""
    checkpoints: dict[int, Part]
    """What is here of them, by the last iteration before each."""

    @classmethod
    def read(cls, folder: Path) -> Recorded:
        """Of a run's folder; UserError if a file is missing or unsound, or can't be replayed."""
        config, views, metrics = read_config(folder), read_views(folder), read_metrics(folder)
        if config.compression.encoding != "fp32":
            raise UserError(
                f"{folder}: compression.encoding is {config.compression.encoding}; a replay knows no links, so it can"
                " only tell what became of runs with fp32"
            )
        first = views[0].iteration
        for due, line in enumerate(metrics, start=first):
            if line.iteration != due:
                raise UserError(f"{folder / METRICS}: iteration {line.iteration} where {due} is due; each counts once")
        if not metrics:
            raise UserError(f"{folder / METRICS} is empty; no iteration was done")
        saved = [(done_iterations(entry), read_part(entry)) for entry in folders_in(folder / "checkpoints")]
        return cls(config, views, metrics, {done - 1: part for done, part in saved if done and part is not None})

    @property
    def restored(self) -> RunView | None:
        """The first view in which a stage is back that had lost all replicas: it does not tell with which weights."""
        begun = [view for view in self.views if view.has_begun]
        for before, view in itertools.pairwise(begun):
            is_back = any(now and not then for now, then in zip(view.stages, before.stages, strict=True))
            if is_back or FIRST_RESTORED in view.reason:
                return view
        return None

    def samples(self, folder: Path) -> int:
        """Sequences in a microbatch; UserError if the run's tokens are no whole number of them."""
        sequences = len(self.views[0].paths) * self.config.model.context
        samples, rest = divmod(self.metrics[0].tokens, sequences)
        if rest or not samples:
            raise UserError(f"{folder / METRICS}: {self.metrics[0].tokens} tokens are no multiple of {sequences}")
        return samples


def replay(folder: Path, recorded: Recorded, checkpoint: Checkpoint | None = None) -> Iterator[Difference]:
    """Train again what a run of this folder trained; give each figure's difference as soon as it is known.

    It ends where a stage that was lost is back, since that is not from its replicas.

    `checkpoint` is what the run went on from, if it did. Texts are read where the run's configuration says. UserError
    if they are missing, or the run began with another iteration than the checkpoint.
    """
    begun = 0 if checkpoint is None else checkpoint.meta.iteration
    if begun != recorded.views[0].iteration:
        raise UserError(
            f"{folder} begins with iteration {recorded.views[0].iteration}, not {begun}; name the checkpoint that the"
            " run went on from with --resume"
        )
    trainer = make_trainer(recorded, recorded.samples(folder))
    if checkpoint is not None:
        trainer.resume(checkpoint)
    taken_up = 0
    for line in recorded.metrics:
        view = view_of(recorded.views, line.iteration)
        if (restored := recorded.restored) is not None and view.number >= restored.number:
            return
        while taken_up < view.number:
            taken_up += 1
            trainer.take_up(recorded.views[taken_up].plan)
        loss = trainer.train_iteration(line.iteration)
        dropped_alike = (line.dropped is not None) == (trainer.dropped_in_a_row > 0)
        yield Difference(LOSS, line.iteration, view.number, relative(line.loss, loss) if dropped_alike else math.inf)
        norm = relative(line.gradient_norm, trainer.gradient_norm)
        yield Difference(NORM, line.iteration, view.number, norm)
        if (saved := recorded.checkpoints.get(line.iteration)) is not None:
            yield Difference(WEIGHTS, line.iteration, view.number, weights_difference(saved, trainer))


def make_trainer(recorded: Recorded, samples: int) -> ReferenceTrainer:
    """A trainer that stands where the run began, and gives up no sooner than it did."""
    config = recorded.config
    patient = replace(config, optimizer=replace(config.optimizer, dropped_in_a_row=sys.maxsize))
    return ReferenceTrainer(patient, recorded.views[0].plan, samples, prepare(config.data))


def relative(found: float, expected: float) -> float:
    """Difference of two figures over the second; none if neither is finite."""
    if not (math.isfinite(found) and math.isfinite(expected)):
        return 0.0 if math.isfinite(found) == math.isfinite(expected) else math.inf
    if found == expected:
        return 0.0
    return abs(found - expected) / abs(expected) if expected else math.inf


def weights_difference(part: Part, trainer: ReferenceTrainer) -> float:
    """The largest of any tensor that is here of a checkpoint."""
    if part.meta.stages != len(trainer.stages):
        raise UserError(f"{part.folder} has {part.meta.stages} stages, the run's views {len(trainer.stages)}")
    return max(
        tensor_difference(saved[name], tensor)
        for stage in part.stages
        for saved in [read_tensors([stage_file(part.folder, stage)], "", trainer.stages[stage])]
        for name, tensor in canonical_state(trainer.stages[stage]).items()
    )


def tensor_difference(found: Tensor, expected: Tensor) -> float:
    """Length of the difference over the length of what is expected.

    Not number by number: where a gradient nearly vanishes, AdamW divides rounding by rounding.
    """
    gap, length = (float(tensor.double().norm()) for tensor in (found - expected.cpu(), expected))
    return 0.0 if gap == 0.0 else gap / length if math.isfinite(gap) and length else math.inf
