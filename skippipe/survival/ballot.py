"""What a member keeps of the ballot it proposes in, and the pauses between sending the same thing again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from skippipe.survival.messages import MOST_NODES, Promise, Proposal

FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 8.0
"""Between the first and the second time that something is sent, and the longest pause: each is twice the last."""


class Pauses:
    """When something is due again."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.times = 0
        """How often it was due."""
        self.pause_s = FIRST_PAUSE_S

    def elapsed(self, now: float) -> bool:
        """Whether it is due; if so, it is due again after a longer pause."""
        if now < self.due:
            return False
        self.times += 1
        self.due = now + self.pause_s
        self.pause_s = min(2 * self.pause_s, MOST_PAUSE_S)
        return True


def suffices(responders: Collection[int], members: Collection[int], dead: Collection[int]) -> bool:
    """Whether these members are a quorum: all that are not dead, or a strict majority of all, dead ones counted."""
    return 2 * len(responders) > len(members) or set(members) <= {*responders, *dead}


def next_number(node: int, highest: int) -> int:
    """The node's lowest ballot above another one; no two nodes have the same."""
    return (highest // MOST_NODES + 1) * MOST_NODES + node


@dataclass
class Ballot:
    """A ballot as its proposer sees it."""

    number: int
    urgent: bool
    dead: frozenset[int]
    """Members that count as dead in its quorums: what was known when it began, and no later."""
    pauses: Pauses
    promises: dict[int, Promise] = field(default_factory=dict)
    """By member; of an urgent ballot, only those that were urgent."""
    proposal: Proposal | None = None
    """None until enough have promised."""
    accepted: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    """Members that can't take the proposal's value."""

    @property
    def answered(self) -> set[int]:
        """Who has answered what was sent last."""
        return set(self.promises) if self.proposal is None else self.accepted

    def forced(self) -> Proposal | None:
        """The proposal that may have been decided on already, and must be proposed again."""
        accepted = [promise.accepted for promise in self.promises.values() if promise.accepted is not None]
        return max(accepted, key=lambda pair: pair[0])[1] if accepted else None
