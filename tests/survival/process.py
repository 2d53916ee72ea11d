"""A simulated process that agrees on views with others, and the application that it does so for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skippipe.runtime.survivors import PROPOSERS
from skippipe.survival.agreement import Agreement, Outgoing
from skippipe.survival.messages import Decided

if TYPE_CHECKING:
    from tests.survival.simulation import World

LOOKING_S = 1.0
"""Until a link has found out whether a peer is there."""


class ViolationError(AssertionError):
    """What must never happen has happened."""


class EndedError(Exception):
    """The process is killed in the middle of an event."""


@dataclass
class Value:
    """What the application agrees on; its bytes are its number in the simulation."""

    view: int
    """The view in which it was made."""
    is_urgent: bool
    members: tuple[int, ...]
    reports: dict[int, tuple[bool, int]]
    """Frozen, and how many iterations are committed, by node."""


@dataclass
class Process:
    """A process of a node, and what its launcher knows of it; at the same time its application."""

    world: World
    node: int
    birth: int
    machine: Agreement = field(init=False)
    is_stopped: bool = False
    waiting: list[Callable[[], list[Outgoing]]] = field(default_factory=list)
    """Events that come while it is stopped."""
    tick_at: float = float("inf")
    first_view: int = -1
    told: Decided | None = None
    view: int = -1
    committed: int = 0
    is_frozen: bool = False
    joiners: set[int] = field(default_factory=set)
    dies: str = ""
    """How the process will die in its next event that does something."""

    def report(self, urgent: bool) -> bytes:
        self.is_frozen = self.is_frozen or urgent
        return b"%d %d" % (self.is_frozen, self.committed)

    def propose(self, reports: dict[int, bytes], lost: frozenset[int]) -> bytes:
        world = self.world
        if self.node not in reports or lost & reports.keys() or lost | reports.keys() != set(self.machine.members):
            raise ViolationError("reports and lost are not the members")
        found = {}
        for node, report in reports.items():
            is_frozen, committed = map(int, report.split())
            found[node] = bool(is_frozen), committed
        members = {*reports, *self.joiners}
        if world.random.random() < world.left_out and len(members) > 2:
            members.discard(world.random.choice(sorted(members - {self.node})))
            world.counts["left out by the application"] += 1
        ballot = self.machine.ballot
        assert ballot is not None
        world.values.append(Value(self.view, ballot.urgent, tuple(sorted(members)), found))
        return b"%d" % (len(world.values) - 1)

    def acceptable(self, value: bytes) -> bool:
        return int(value) < len(self.world.values)

    def members_of(self, value: bytes) -> tuple[int, ...]:
        return self.world.values[int(value)].members

    def adopt(self, number: int, value: bytes) -> None:
        if self.dies == "before it tells":
            raise EndedError
        decision = self.machine.decision
        assert decision is not None
        assert (decision.view, decision.proposal.value) == (number, value)
        self.world.check_adoption(self, decision)
        self.told, self.view = decision, number
        self.world.counts["adopted"] += 1
        self.is_frozen = False
        self.joiners.clear()
        self.look_for_those_who_entered()

    def look_for_those_who_entered(self) -> None:
        """Nobody suspects them any more, so links find out anew who is there: those that Survivors.be_ready opens."""
        members = self.machine.members
        first = members[:PROPOSERS]
        for peer in self.machine.entered.intersection(members if self.node in first else first) - {self.node}:
            self.world.at(LOOKING_S, lambda peer=peer: self.world.check_link(self.node, peer, self))

    def excluded(self, number: int) -> bool:
        if self.dies == "before it tells":
            raise EndedError
        self.told = self.machine.decision
        if self.told is not None and self.told.view == number:
            self.world.check_decision(self.told)
        decided = self.world.adopted.get(number)
        if decided is None or (self.node, self.birth) in decided.proposal.members:
            raise ViolationError(f"node {self.node} is told that it is not in view {number}")
        self.world.counts["excluded"] += 1
        if self.joins_again():
            self.world.counts["joined again"] += 1
            self.is_frozen = False
            self.joiners.clear()
            self.world.check_links()
            return True
        self.world.at(self.world.random.random(), lambda: self.world.come_back(self))
        return False

    def joins_again(self) -> bool:
        """Whether it is as good as new, though it was left out."""
        return self.world.random.random() < self.world.joining_again

    def joining(self, node: int) -> None:
        self.joiners.add(node)
        self.world.at(0.1, lambda: self.world.event(self, lambda now: self.machine.want_change(now)))

    def no_majority(self, reachable: tuple[int, ...], members: tuple[int, ...]) -> None:
        self.world.counts["no majority"] += 1
