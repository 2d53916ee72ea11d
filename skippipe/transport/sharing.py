"""Sharing of figures over a tree, as one node sees it: a state machine without sockets and clocks.

Every node sends its parent the rows of its part of the tree, and the root sends everyone's back: two messages for each
node but the root, and twice the depth of the tree until all are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from skippipe.transport.collective import Collective, Expected, Outgoing
from skippipe.transport.message import Header, MessageKind

CHILDREN = 8
"""Of a node in the tree: 73 nodes are at most two hops from the root, which sends 8 messages."""


class Tree:
    """The tree among some nodes: the first is the root, and each has at most CHILDREN others below it."""

    def __init__(self, members: Sequence[int], node: int) -> None:
        self.members = tuple(members)
        self.rank = self.members.index(node)
        self.children = self.below(self.rank)
        """Ranks."""
        self.parent = (self.rank - 1) // CHILDREN if self.rank else None
        """Rank, None for the root."""

    def below(self, rank: int) -> list[int]:
        """Ranks of a rank's children."""
        first = CHILDREN * rank + 1
        return list(range(len(self.members)))[first : first + CHILDREN]

    def branch(self, rank: int) -> list[int]:
        """A rank and all that are below it."""
        return [rank, *(deeper for child in self.below(rank) for deeper in self.branch(child))]

    @property
    def neighbours(self) -> list[int]:
        """Nodes that this one sends to."""
        ranks = self.children if self.parent is None else [self.parent, *self.children]
        return [self.members[rank] for rank in ranks]

    def expected(self, width: int) -> Expected:
        """What must come if each node has so many figures."""
        found: Expected = {
            (MessageKind.FIGURES, self.members[child], 0): (len(self.branch(child)), width) for child in self.children
        }
        if self.parent is not None:
            found[MessageKind.TABLE, self.members[self.parent], 0] = (len(self.members), width)
        return found


class Sharing(Collective):
    """The figures of all members of a tree, a row each."""

    def __init__(self, tree: Tree, figures: Sequence[float]) -> None:
        """`figures` are this node's."""
        super().__init__(tree.members, tree.members[tree.rank], tree.expected(len(figures)))
        self.tree = tree
        self.table = torch.zeros(len(tree.members), len(figures), dtype=torch.float64)
        """Everyone's figures when it is done, in the order of ranks."""
        self.table[tree.rank] = torch.tensor(figures, dtype=torch.float64)

    def begin(self) -> Iterator[Outgoing]:
        """A leaf begins."""
        return self.go_on()

    def take(self, header: Header, rank: int, message: Tensor) -> Iterator[Outgoing]:
        """Add the rows of a branch, or take everyone's."""
        if header.kind is MessageKind.TABLE:
            self.table.copy_(message)
            yield from self.spread()
        else:
            self.table[self.tree.branch(rank)] = message
            yield from self.go_on()

    def go_on(self) -> Iterator[Outgoing]:
        """Pass the branch's rows on once all of them are here."""
        if any(kind is MessageKind.FIGURES for kind, _, _ in self.expected):
            return
        if self.tree.parent is None:
            yield from self.spread()
        else:
            rows = self.table[self.tree.branch(self.rank)]
            yield Outgoing(self.members[self.tree.parent], MessageKind.FIGURES, 0, rows)

    def spread(self) -> Iterator[Outgoing]:
        """Send everyone's figures down the tree."""
        for child in self.tree.children:
            yield Outgoing(self.members[child], MessageKind.TABLE, 0, self.table)
