"""All-reduce of a flat gradient among replicas, as one of them sees it: a state machine without sockets and clocks.

The direct form: the gradient is cut into a shard for each replica. Everyone sends each other its shard, sums its own
over all replicas, and hands the mean on to all others: 2 (n - 1) / n of the gradient's bytes go out and come in. Shards
travel in parts, so that sums and transfers overlap.

Sums go in the order of ranks, whatever comes first, and only one replica computes each: all end equal to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from skippipe.transport.collective import Collective, Expected, Outgoing
from skippipe.transport.message import Header, MessageKind

PART_NUMBERS = 1 << 20
"""Numbers of a part, 4 MB: small enough for sums to begin early; smaller ones cost more (benchmarks/collectives.py)."""


class PartFormat(Protocol):
    """How a part of a shard is written into a message and read from it."""

    def shape(self, numbers: int) -> tuple[int, ...]:
        """Shape of the message of so many numbers."""

    def write(self, begin: int, part: Tensor) -> Tensor:
        """The message of a part that begins at a place of the gradient; `part` then holds what its readers will read.

        The message may be a view of the part, whose memory stays as it is until every reader has it.
        """

    def read(self, message: Tensor, numbers: int) -> Tensor:
        """The part's fp32 numbers; their memory is the reader's own."""


class Exact:
    """fp32 as it is: messages are views."""

    def shape(self, numbers: int) -> tuple[int, ...]:
        """One number for each."""
        return (numbers,)

    def write(self, begin: int, part: Tensor) -> Tensor:
        """The part itself."""
        return part

    def read(self, message: Tensor, numbers: int) -> Tensor:
        """The message itself."""
        return message


def shards(numbers: int, ranks: int, most: int = PART_NUMBERS) -> list[list[slice]]:
    """Each rank's shard of so many numbers, cut into parts of at most `most`."""
    edges = [numbers * rank // ranks for rank in range(ranks + 1)]
    return [
        [slice(begin, min(begin + most, edges[rank + 1])) for begin in range(edges[rank], edges[rank + 1], most)]
        for rank in range(ranks)
    ]


def expected_parts(
    members: Sequence[int], node: int, numbers: int, form: PartFormat, most: int = PART_NUMBERS
) -> Expected:
    """What a node must receive in an all-reduce of so many numbers among these members, itself one of them."""
    found: Expected = {}
    parts = shards(numbers, len(members), most)
    own = parts[members.index(node)]
    for member, theirs in zip(members, parts, strict=True):
        if member != node:
            for kind, places in ((MessageKind.SHARD, own), (MessageKind.SUM, theirs)):
                for number, place in enumerate(places):
                    found[kind, member, number] = form.shape(place.stop - place.start)
    return found


class AllReduce(Collective):
    """The gradient of all members, summed and divided; it is replaced by that in place, part by part.

    That breaks nothing that is still being sent: whoever gets a mean knows by it that its owner has the part that the
    mean takes the place of. A node's own means are the exception: the gradient must not change before the node knows
    that all others are done.
    """

    def __init__(
        self,
        members: Sequence[int],
        node: int,
        gradient: Tensor,
        divisor: int,
        form: PartFormat,
        most: int = PART_NUMBERS,
    ) -> None:
        """The gradient is flat, on the CPU, and has a number for each member at least."""
        assert len(gradient) >= len(members)
        super().__init__(members, node, expected_parts(members, node, len(gradient), form, most))
        self.gradient = gradient
        self.divisor = divisor
        self.form = form
        self.parts = shards(len(gradient), len(members), most)
        self.came: dict[int, dict[int, Tensor]] = {}
        """By part of our shard: what others sent of it, by rank."""

    @property
    def others(self) -> tuple[int, ...]:
        """Ranks of the other members, beginning with the next: so not everyone sends to the same one first."""
        ranks = len(self.members)
        return tuple((self.rank + step) % ranks for step in range(1, ranks))

    def begin(self) -> Iterator[Outgoing]:
        """To everyone the parts of its shard."""
        if len(self.members) == 1:
            self.gradient.div_(self.divisor)
        for number in range(max(map(len, self.parts))):
            for rank in self.others:
                if number < len(self.parts[rank]):
                    place = self.parts[rank][number]
                    message = self.form.write(place.start, self.gradient[place])
                    yield Outgoing(self.members[rank], MessageKind.SHARD, number, message)

    def take(self, header: Header, rank: int, message: Tensor) -> Iterator[Outgoing]:
        """Put a mean in its place, or sum a part of our shard once all have sent it."""
        place = self.parts[rank if header.kind is MessageKind.SUM else self.rank][header.part]
        part = self.form.read(message, place.stop - place.start)
        if header.kind is MessageKind.SUM:
            self.gradient[place] = part
            return
        came = self.came.setdefault(header.part, {})
        came[rank] = part
        if len(came) == len(self.members) - 1:
            yield from self.hand_on(header.part, self.came.pop(header.part))

    def hand_on(self, number: int, came: dict[int, Tensor]) -> Iterator[Outgoing]:
        """Sum a part of our shard in the order of ranks, and send its mean to all others."""
        place = self.parts[self.rank][number]
        own = self.gradient[place]
        total = came.get(0, own)
        for rank in range(1, len(self.members)):
            # Until it is our own turn, the sum lies in what came first.
            total = torch.add(total, came.get(rank, own), out=own if rank >= self.rank else total)
        own.div_(self.divisor)
        message = self.form.write(place.start, own)
        for rank in self.others:
            yield Outgoing(self.members[rank], MessageKind.SUM, number, message)
