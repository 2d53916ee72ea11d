"""Which checkpoint the machines of a run go on from, and who has which of its files: from what each of them tells.

A machine's first node tells of the newest checkpoints on its disk, as a row of figures; all nodes then know the same
and come to the same choice, which nobody has to be told of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from skippipe.errors import NothingToResumeError, UserError
from skippipe.model.checkpoint import stage_name
from skippipe.model.feedback import feedback_name
from skippipe.model.parts import Part

LISTED = 16
"""So many checkpoints a machine tells of."""
NAMED = 3
"""So many are said what they lack, if none is whole."""
FIXED = 4
"""Figures of a checkpoint beside the sizes of its files: iteration, both halves of its identity, stages."""
HALF_DIGITS = 13
"""Hexadecimal digits of an identity that a figure holds exactly."""


@dataclass
class Found:
    """A checkpoint as the machines have it together."""

    iteration: int
    identity: str
    stages: int
    holders: dict[str, dict[int, int]] = field(default_factory=dict)
    """By file: nodes on whose machine it lies, and its size in bytes there."""

    @property
    def missing(self) -> list[int]:
        """Stages that nobody has."""
        return [stage for stage in range(self.stages) if stage_name(stage) not in self.holders]

    def holder(self, name: str, node: int) -> tuple[int, int]:
        """Whom a node gets a file from, and its size there; different nodes ask different ones if there are several."""
        held = sorted(self.holders[name].items())
        return held[node % len(held)]


class Catalogue:
    """Rows of figures about checkpoints of one model, and the choice that follows from them."""

    def __init__(self, layers: int, nodes: int) -> None:
        """The model has so many layers, so at most as many stages; the run so many nodes."""
        self.layers = layers
        self.names = [*map(stage_name, range(layers)), *map(feedback_name, range(nodes))]

    @property
    def width(self) -> int:
        """Figures of a row."""
        return 1 + LISTED * (FIXED + len(self.names))

    def row(self, parts: Sequence[Part], newest: int | None) -> list[float]:
        """What a machine tells: of the checkpoints on its disk, and after how many iterations it wants one at most."""
        figures = [float(newest or 0)]
        for part in parts[:LISTED]:
            identity, half = part.meta.identity, HALF_DIGITS
            halves = (int(identity[:half], 16), int(identity[half:], 16))
            figures += [float(part.meta.iteration), *map(float, halves), float(part.meta.stages)]
            figures += [float(size_of(part, name)) for name in self.names]
        return figures + [0.0] * (self.width - len(figures))

    def read(self, rows: Mapping[int, Sequence[float]]) -> list[Found]:
        """All checkpoints that somebody tells of, none newer than anybody wants, the newest first."""
        newest = min((row[0] for row in rows.values() if row[0]), default=float("inf"))
        found: dict[tuple[int, str], Found] = {}
        for node, row in sorted(rows.items()):
            for begin in range(1, self.width, FIXED + len(self.names)):
                iteration, first, second, stages, *sizes = row[begin : begin + FIXED + len(self.names)]
                if not 0 < iteration <= newest:
                    continue
                identity = f"{int(first):0{HALF_DIGITS}x}{int(second):0{HALF_DIGITS}x}"
                key = int(iteration), identity
                own = found.setdefault(key, Found(*key, int(stages)))
                for name, size in zip(self.names, sizes, strict=True):
                    if size:
                        own.holders.setdefault(name, {})[node] = int(size)
        return [found[key] for key in sorted(found, reverse=True)]

    def choose(self, rows: Mapping[int, Sequence[float]]) -> Found:
        """The newest checkpoint that is complete over all machines; NothingToResumeError if that can't be gone on from.

        So it is if there is none, if they are of several runs, or of a model with other layers.
        """
        try:
            chosen = newest_whole(self.read(rows), "node {}'s machine".format)
        except UserError as error:
            raise NothingToResumeError(f"--resume: {error}") from None
        if self.layers % chosen.stages:
            raise NothingToResumeError(
                f"--resume: the checkpoint of iteration {chosen.iteration} is of another model: {chosen.stages} stages"
                f" have not the {self.layers} layers of this run's"
            )
        return chosen


def newest_whole(found: Sequence[Found], machine: Callable[[int], str]) -> Found:
    """The first of some checkpoints that is complete, which are of one run and the newest first.

    UserError if there is none, or several runs have one; `machine` says where a holder is.
    """
    whole = [own for own in found if not own.missing]
    if not found:
        raise UserError("no machine has a checkpoint in the folder that it was given")
    if not whole:
        lacks = [f"of iteration {own.iteration} nobody has stage {listed(own.missing)}" for own in found[:NAMED]]
        raise UserError(f"no checkpoint is complete over all machines: {'; '.join(lacks)}")
    chosen = whole[0]
    for other in whole:
        if other.identity != chosen.identity:
            there = " and ".join(machine(min(own.holders[stage_name(0)])) for own in (chosen, other))
            raise UserError(f"the folders that were given on {there} are of different runs")
    return chosen


def listed(numbers: Sequence[int]) -> str:
    """Numbers for a sentence."""
    return ", ".join(map(str, numbers))


def size_of(part: Part, name: str) -> int:
    """Bytes of a file of a checkpoint here, 0 if it is not."""
    file = part.folder / name
    return file.stat().st_size if file.exists() else 0
