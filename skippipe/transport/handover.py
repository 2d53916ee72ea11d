"""Handing a replica's state to one that comes back, as each end sees it: a state machine without sockets and clocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from skippipe.transport.all_reduce import PART_NUMBERS
from skippipe.transport.collective import Collective, Expected, Outgoing
from skippipe.transport.message import Header, MessageKind


class Handover(Collective):
    """Numbers in parts, and figures, from the first of two nodes to the second."""

    def __init__(
        self, donor: int, joiner: int, node: int, numbers: Tensor, figures: Tensor, most: int = PART_NUMBERS
    ) -> None:
        """`numbers`, (N,) fp32, and `figures`, fp64, are the donor's to send, and what the joiner fills.

        The donor's memory must not change until it is delivered. A part has at most `most` numbers.
        """
        self.parts = [slice(begin, min(begin + most, len(numbers))) for begin in range(0, len(numbers), most)]
        expected: Expected = {}
        if node == joiner:
            expected = {
                (MessageKind.STATE, donor, part): (place.stop - place.start,) for part, place in enumerate(self.parts)
            }
            expected[MessageKind.STATE_FIGURES, donor, 0] = tuple(figures.shape)
        super().__init__((donor, joiner), node, expected)
        self.numbers = numbers
        self.figures = figures

    def begin(self) -> Iterator[Outgoing]:
        """The donor sends everything."""
        donor, joiner = self.members
        if self.node == donor:
            yield Outgoing(joiner, MessageKind.STATE_FIGURES, 0, self.figures)
            for part, place in enumerate(self.parts):
                yield Outgoing(joiner, MessageKind.STATE, part, self.numbers[place])

    def take(self, header: Header, rank: int, message: Tensor) -> Iterator[Outgoing]:
        """Put what has come in its place."""
        if header.kind is MessageKind.STATE_FIGURES:
            self.figures.copy_(message)
        else:
            self.numbers[self.parts[header.part]] = message
        return iter(())


def blank(donor: int, joiner: int, numbers: int, figures: tuple[int, int]) -> Handover:
    """The joiner's end of a handover of so many numbers, and figures of this shape."""
    filled = torch.zeros(numbers), torch.zeros(figures, dtype=torch.float64)
    return Handover(donor, joiner, joiner, *filled)
