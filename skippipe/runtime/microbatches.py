"""The batches of a run's microbatches, whichever node reads them, and what nodes tell of where the text goes on."""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from skippipe.data.parts import Parts, first_positions
from skippipe.data.stream import Position
from skippipe.runtime.figures import Rows, places_of
from skippipe.runtime.job import Job
from skippipe.survival.succession import sources

PLACE = len(Position._fields)
"""Numbers of a position."""


class Microbatches:
    """Reads the batch of any microbatch: a node may inherit those of another."""

    def __init__(self, job: Job) -> None:
        self.sources = sources(job.plan)
        """Where each microbatch's batch is read: part of the data and number."""
        sent = Counter(part for part, _ in self.sources)
        numbers = [sent[part] for part in range(len(job.plan.stages[0]))]
        samples = job.schedule.pipeline.samples_per_microbatch
        self.parts = Parts(job.prepared, numbers, samples, job.config.model.context, job.config.seed)
        saved = (job.checkpoint.meta.text, job.checkpoint.meta.positions) if job.checkpoint else ()
        self.parts.begin(job.first_iteration, first_positions(job.prepared, len(numbers), *saved))

    def read(self, iteration: int, microbatch: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets, (B, T) each; a microbatch has the same ones whoever reads them."""
        return self.parts.batch(iteration, *self.sources[microbatch])

    @property
    def width(self) -> int:
        """Numbers that say where all parts go on; none of a token file."""
        return PLACE * len(self.parts.positions)

    def ends(self) -> list[float]:
        """Where each part goes on after the iteration, as numbers; zeros of those that were read elsewhere."""
        ends = self.parts.ends()
        blank = Position(0, 0, 0)
        return [float(number) for part in range(len(self.parts.positions)) for number in ends.get(part, blank)]

    def go_on(self, rows: Rows) -> None:
        """The iteration is committed, and this is what every node told."""
        ends: dict[int, Position] = {}
        for numbers in places_of(rows):
            ends |= {part: place for part, place in enumerate(positions_of(numbers)) if place.used}
        self.parts.go_on(ends)

    def now(self) -> list[float]:
        """Where all parts begin in the iteration, as numbers."""
        return [float(number) for place in self.parts.positions for number in place]

    def join(self, iteration: int, numbers: list[float]) -> None:
        """Begin in the middle of the run, with what a node that is there told."""
        self.parts.begin(iteration, positions_of(numbers))


def positions_of(numbers: list[float]) -> list[Position]:
    """The positions that these numbers are."""
    whole = [int(number) for number in numbers]
    return [Position(*whole[first : first + PLACE]) for first in range(0, len(whole), PLACE)]
