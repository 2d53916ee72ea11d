"""Numbers that are not finite: noticed at the node where they begin, kept from weights by dropping iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum

import torch
from torch import Tensor

from skippipe.errors import DivergedError
from skippipe.schedule.plan import Kind
from skippipe.transport.message import MalformedMessageError, whole_number


class Poison(IntEnum):
    """What was not finite at a node, in the order in which causes are named; its number is what nodes share."""

    ACTIVATION = 1
    LOSS = 2
    GRADIENT = 3
    WEIGHT_GRADIENT = 4
    SUM = 5
    INPUT = 6
    """It came over a link: the cause is elsewhere, unless nobody else found one."""

    @property
    def text(self) -> str:
        """What was not finite, for a sentence that goes on with the node."""
        return {
            Poison.ACTIVATION: "an activation computed by",
            Poison.LOSS: "the loss at",
            Poison.GRADIENT: "a gradient computed by",
            Poison.WEIGHT_GRADIENT: "the weights' gradient at",
            Poison.SUM: "the replicas' summed gradient at",
            Poison.INPUT: "what reached",
        }[self]


def is_finite(tensor: Tensor) -> bool:
    """Whether every number of a tensor is finite."""
    return is_finite_by(tensor, float(tensor.detach().sum()))


def is_finite_by(tensor: Tensor, total: float) -> bool:
    """Whether every number of a tensor with this sum is finite."""
    # One pass and no memory if the sum is finite; it may overflow though every number is finite.
    return math.isfinite(total) or bool(torch.isfinite(tensor).all())


def poison_of_task(
    kind: Kind, received: Tensor | None, result: Tensor | None, loss: float, total: float
) -> Poison | None:
    """What a task found that is not finite: in what it received, if it did, or else in its loss or its result.

    `total` is the sum of its result, or of what it received if it has none.
    """
    leaves = result if result is not None else received
    if math.isfinite(loss) and (leaves is None or is_finite_by(leaves, total)):
        return None
    if received is not None and not is_finite(received):
        return Poison.INPUT
    if not math.isfinite(loss):
        return Poison.LOSS
    return Poison.ACTIVATION if kind is Kind.FORWARD else Poison.GRADIENT


def poison_told(node: int, figure: float) -> Poison:
    """What a node says was not finite; MalformedMessageError if that is no number of a Poison."""
    try:
        return Poison(whole_number(figure, max(Poison), least=min(Poison)))
    except MalformedMessageError as error:
        raise MalformedMessageError(f"node {node} shares what can't be read: {error}") from None


def first_cause(poisons: Mapping[int, float], stage_of: dict[int, int]) -> str | None:
    """A sentence on where the numbers began, from what every node found (0: nothing); None if all are finite.

    MalformedMessageError if a node says something else.
    """
    found = sorted((poison_told(node, poison), node) for node, poison in poisons.items() if poison)
    if not found:
        return None
    poison, node = found[0]
    more = f"; {len(found) - 1} other nodes met such numbers too" if len(found) > 1 else ""
    return f"{poison.text} node {node} (stage {stage_of.get(node, '?')}) was not finite{more}"


class Drops:
    """Counts the iterations that were dropped in a row."""

    def __init__(self, most: int, first: int) -> None:
        """`most` in a row end the run; `first` is the run's first iteration."""
        self.most = most
        self.in_a_row = 0
        self.proven = first - 1
        """The last iteration that was not dropped: its weights are known to give finite numbers."""
        self.cause = ""
        """Where the numbers of the last dropped iteration began."""

    def count(self, iteration: int, cause: str | None) -> None:
        """Take the outcome of an iteration: why it is dropped, None if it is not."""
        if cause is None:
            self.in_a_row, self.proven = 0, iteration
        else:
            self.in_a_row, self.cause = self.in_a_row + 1, cause

    @property
    def diverged(self) -> bool:
        """Whether the run must end."""
        return self.in_a_row >= self.most

    def check(self) -> None:
        """DivergedError if the run had to end."""
        if self.diverged:
            raise DivergedError(f"the last {self.in_a_row} iterations were dropped, the last one because {self.cause}")
