"""What a replica hands to one that comes back: weights, moments and what it knows of the run, and how both send it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skippipe.model.optimizer import StageOptimizer
from skippipe.runtime.figures import BITS_OF_A_FIGURE, WIDTHS, Rows
from skippipe.runtime.gradients import Exchange
from skippipe.runtime.soundness import Drops
from skippipe.survival.course import donor
from skippipe.survival.view import View
from skippipe.transport.handover import Handover, blank

MOMENTS = ("exp_avg", "exp_avg_sq")
NAME_DIGITS = BITS_OF_A_FIGURE // 4
WIDTH = WIDTHS[Exchange.FIGURES]
"""Of the rows of figures; the first says what is no number of the stage, the others are everyone's figures."""


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
    figures: Rows
    """Everyone's, of the last iteration."""

    def to_tensor(self, members: list[int]) -> Tensor:
        """As rows of figures, (1 + members, WIDTH) fp64."""
        halves = (self.run[:NAME_DIGITS], self.run[NAME_DIGITS:])
        own = [*(float(int(half, 16)) for half in halves), self.step, float(self.dropped_in_a_row), float(self.proven)]
        rows = [own + [0.0] * (WIDTH - len(own)), *(self.figures[member] for member in members)]
        return torch.tensor(rows, dtype=torch.float64)

    @classmethod
    def from_tensor(cls, rows: Tensor, members: list[int]) -> Self:
        """What to_tensor wrote."""
        first, second, step, in_a_row, proven, *_ = rows[0].tolist()
        figures = dict(zip(members, rows[1:].tolist(), strict=True))
        name = f"{int(first):0{NAME_DIGITS}x}{int(second):0{NAME_DIGITS}x}"
        return cls(name, step, int(in_a_row), int(proven), figures)


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


def handovers(view: View, node: int, optimizer: StageOptimizer, knowledge: Knowledge) -> list[Handover]:
    """What a node has to hand to those who have joined in a view: its state as it is now, in memory of its own."""
    joiners = [joiner for joiner in view.joined if donor(view, joiner) == node]
    if not joiners:
        return []
    numbers, figures = numbers_of(optimizer), knowledge.to_tensor(earlier_members(view))
    return [Handover(node, joiner, node, numbers, figures) for joiner in joiners]


def awaited(view: View, node: int, optimizer: StageOptimizer) -> Handover:
    """What a node that has joined in a view gets."""
    rows = 1 + len(earlier_members(view))
    return blank(donor(view, node), node, (1 + len(MOMENTS)) * len(optimizer.flat), (rows, WIDTH))


def know(run: str, optimizer: StageOptimizer, drops: Drops, figures: Rows) -> Knowledge:
    """What a replica knows after an iteration with these figures."""
    return Knowledge(run, float(optimizer.moments("step")[0]), drops.in_a_row, drops.proven, figures)
