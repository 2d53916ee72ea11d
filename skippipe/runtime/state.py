"""What a replica hands to one that comes back or moves to its stage: weights, moments, what it knows of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from skippipe.model.optimizer import StageOptimizer
from skippipe.runtime.figures import BITS_OF_A_FIGURE, COUNT, MOST_PART, NAME_FIGURES, Rows
from skippipe.runtime.gradients import Exchange
from skippipe.runtime.soundness import Drops
from skippipe.survival.view import View
from skippipe.transport.handover import Handover, blank
from skippipe.transport.message import MalformedMessageError, whole_number

EXCHANGES = (Exchange.STATE, Exchange.SECOND_STATE)
"""In which neighbours of a stage hand over what it can be restored from."""
MOMENTS = ("exp_avg", "exp_avg_sq")
NAME_DIGITS = BITS_OF_A_FIGURE // 4
OWN = NAME_FIGURES + 4
"""Numbers that say what is neither one of the stage nor where the text goes on."""


@dataclass(frozen=True)
class Knowledge:
    """What a replica knows beside its stage's numbers."""

    run: str
    """The run's name, 26 hexadecimal digits."""
    step: float
    """Optimizer steps so far."""
    dropped_in_a_row: int
    proven: int
    """The last iteration that was not dropped."""
    axis_s: float
    """How far the run's time is ahead of its wire clock, in seconds."""
    places: list[float]
    """Where the text goes on, as numbers."""
    figures: Rows
    """Everyone's, of the last iteration."""

    def to_tensor(self, members: list[int]) -> Tensor:
        """As rows as wide as figures, (1 + members, COUNT + places) fp64: the first is what this node knows."""
        halves = (self.run[:NAME_DIGITS], self.run[NAME_DIGITS:])
        own = [*(float(int(half, 16)) for half in halves), self.step, float(self.dropped_in_a_row), float(self.proven)]
        own.append(self.axis_s)
        rows = [own + [0.0] * (COUNT - OWN) + self.places, *(self.figures[member] for member in members)]
        return torch.tensor(rows, dtype=torch.float64)

    @classmethod
    def from_tensor(cls, rows: Tensor, members: list[int]) -> Self:
        """What to_tensor wrote; MalformedMessageError if it did not write that."""
        first = rows[0].tolist()
        *halves, step, in_a_row, proven, axis_s = first[:OWN]
        name = "".join(f"{whole_number(half, MOST_PART):0{NAME_DIGITS}x}" for half in halves)
        figures = dict(zip(members, rows[1:].tolist(), strict=True))
        count, last = whole_number(in_a_row, MOST_PART), whole_number(proven, MOST_PART, least=-1)
        if not math.isfinite(axis_s):
            raise MalformedMessageError(f"{axis_s} is no offset of clocks")
        return cls(name, float(whole_number(step, MOST_PART)), count, last, axis_s, first[COUNT:], figures)


class Given(NamedTuple):
    """One handover, and how it is told from others."""

    exchange: Exchange
    handover: Handover


def earlier_members(view: View) -> list[int]:
    """Members of a view that have not joined with it: those that the iteration before it was done by."""
    return sorted(set(view.members) - set(view.joined))


def numbers_of(optimizer: StageOptimizer) -> Tensor:
    """A copy of a stage's weights and both moments, (3 x parameters,) fp32 on the CPU."""
    tensors = [*optimizer.parameters, *(tensor for name in MOMENTS for tensor in optimizer.moments(name))]
    return torch.cat([tensor.detach().reshape(-1).cpu() for tensor in tensors])


def restore(optimizer: StageOptimizer, numbers: Tensor, step: float) -> None:
    """Fill a stage's weights and its optimizer with what numbers_of gave, after so many steps."""
    parameters = optimizer.parameters
    shaped = []
    for tensor in parameters * (1 + len(MOMENTS)):
        part, numbers = numbers[: tensor.numel()], numbers[tensor.numel() :]
        shaped.append(part.view_as(tensor).to(tensor.device, copy=True))
    count = len(parameters)
    for place, parameter in enumerate(parameters):
        weight, *moments = shaped[place::count]
        with torch.no_grad():
            parameter.copy_(weight)
        optimizer.restore(parameter, step, dict(zip(MOMENTS, moments, strict=True)))


def handovers(view: View, node: int, stage: int, optimizer: StageOptimizer, knowledge: Knowledge) -> list[Given]:
    """What a node that holds a stage has to hand to others: its state as it is now, in memory of its own.

    Whoever moves away and restores another stage hands each of them to those who get that one.
    """
    stage_of = view.plan.stage_of()
    numbers, figures = numbers_of(optimizer), knowledge.to_tensor(earlier_members(view))
    given = [
        Given(Exchange.STATE, Handover(node, other, node, numbers, figures))
        for other, donor in view.donors.items()
        if donor == node and stage_of[other] == stage
    ]
    for other, near in view.restored.items():
        if node in near:
            alike = numbers[: count_alike(view, node, len(numbers))]
            given.append(Given(EXCHANGES[near.index(node)], Handover(node, other, node, alike, figures)))
    return given


def awaited(view: View, node: int, optimizer: StageOptimizer, width: int) -> list[Given]:
    """What a node gets that has joined in a view, or moved to another stage, with what it is to fill.

    Rows of figures have so many numbers (`width`).
    """
    shape = (1 + len(earlier_members(view)), width)
    numbers = (1 + len(MOMENTS)) * len(optimizer.flat)
    if node in view.donors:
        return [Given(Exchange.STATE, blank(view.donors[node], node, numbers, shape))]
    return [
        Given(exchange, blank(donor, node, count_alike(view, donor, numbers), shape))
        for exchange, donor in zip(EXCHANGES, view.restored.get(node, ()), strict=False)
    ]


def count_alike(view: View, donor: int, numbers: int) -> int:
    """How many numbers a donor's stage has in common with all others but the first, whose embedding none has."""
    return 0 if donor in view.plan.stages[0] else numbers


def mean_of_neighbours(view: View, given: list[Given], figures: Rows) -> Tensor | None:
    """A lost stage's numbers from its neighbours' (CheckFree, arXiv 2506.15461): weights alone, its moments are zero.

    Weights count by their stage's squared gradient norm in `figures`. None if there are no neighbours of its shapes.
    """
    known = [part.handover for part in given if len(part.handover.numbers)]
    if not known:
        return None
    norms = []
    for handover in known:
        stage = next(nodes for nodes in view.plan.stages if handover.members[0] in nodes)
        norms.append(max(figures[node][0] for node in stage if node in figures))
    if not all(math.isfinite(norm) for norm in norms) or not sum(norms):
        norms = [1.0] * len(norms)
    parameters = len(known[0].numbers) // (1 + len(MOMENTS))
    numbers = torch.zeros_like(known[0].numbers)
    for handover, norm in zip(known, norms, strict=True):
        numbers[:parameters] += handover.numbers[:parameters] * (norm / sum(norms))
    return numbers


def know(
    run: str, optimizer: StageOptimizer, drops: Drops, axis_s: float, places: list[float], figures: Rows
) -> Knowledge:
    """What a replica knows after an iteration with these figures, and before one in which the text goes on there."""
    step = float(optimizer.moments("step")[0])
    return Knowledge(run, step, drops.in_a_row, drops.proven, axis_s, places, figures)
