"""What each member is in the agreement on the next view: it promises, reports and accepts; and what it knows."""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import NamedTuple, Protocol

from skippipe.survival.ballot import FIRST_PAUSE_S, Ballot, Pauses
from skippipe.survival.messages import (
    Accept,
    Accepted,
    Decided,
    Excluded,
    Message,
    Prepare,
    Promise,
    Proposal,
    Reject,
    ViewMessage,
)
from skippipe.survival.standing import Standing

log = logging.getLogger(__name__)
MOST_DOUBLINGS = 4
"""Of the time for which a proposer makes way for another."""


class Application(Protocol):
    """What is agreed on, and what follows. It is called from within events, and causes no others meanwhile."""

    def report(self, urgent: bool) -> bytes:
        """What this member tells the proposer; if it is urgent, that stays true until the next view begins."""

    def propose(self, reports: dict[int, bytes], lost: frozenset[int]) -> bytes:
        """The next view's value, whose members have reported or ask to join.

        `lost` are the members without a report: dead, or suspected and silent.
        """

    def acceptable(self, value: bytes) -> bool:
        """Whether a value that somebody proposes is sound; called before anything else is asked about it."""

    def members_of(self, value: bytes) -> tuple[int, ...]:
        """Nodes that a sound value names."""

    def adopt(self, number: int, value: bytes) -> None:
        """A view begins. Before this returns, the launcher must have got Agreement.decision."""

    def excluded(self, number: int) -> bool:
        """A view has begun without this node: whether it asks to join again, since it had nothing to work on yet.

        Else its machine ends, and one with another birth may join. As with adopt, the launcher must have got
        Agreement.decision, which this node may be the only one to know.
        """

    def joining(self, node: int) -> None:
        """This member is the proposer, and a process of that node asks to join: see want_change. Once in each view."""

    def no_majority(self, reachable: tuple[int, ...], members: tuple[int, ...]) -> None:
        """A change is wanted, and these members, all that can be reached, have been no quorum for too long."""


class Outgoing(NamedTuple):
    """A message to send."""

    receiver: int
    message: Message


class Acceptor:
    """A member's state in the view it is in."""

    def __init__(self, node: int, application: Application, now: float) -> None:
        self.node = node
        self.application = application
        self.now = now
        self.standing = Standing()
        self.births: dict[int, int] = {}
        """Of the current view's members, by node."""
        self.outgoing: list[Outgoing] = []
        self.own: deque[ViewMessage] = deque()
        """Messages to ourselves, which are taken before an event ends."""
        self.decision: Decided | None = None
        """The newest that we know of: what began our view or left us out of it; None in the first view."""
        self.is_excluded = False

    def begin_view(self, number: int, births: dict[int, int]) -> None:
        """Nothing has been promised in this view yet; `births` are the members' by node."""
        self.entered = frozenset(node for node, birth in births.items() if self.births.get(node) != birth)
        """Members whose process was none in the view before."""
        self.number, self.births = number, births
        self.standing.begin_view(births, self.entered)
        self.promised = -1
        self.accepted: tuple[int, Proposal] | None = None
        self.answer: Promise | None = None
        """What the promised ballot's Prepare was answered with."""
        self.is_frozen = False
        """Whether an urgent report was made."""
        self.is_asked = self.is_asked_urgently = False
        self.ballot: Ballot | None = None
        """Our own."""
        self.highest = -1
        """The highest ballot that we were refused for."""
        self.doublings = 0
        self.silent_until = self.now
        """We begin no ballot before."""
        self.asking = Pauses(self.now)
        self.asked_for = self.proposer, False
        """The member that we ask for a change, and whether it is urgent."""
        self.told: dict[int, float] = {}
        """When a node was last sent what began this view."""

    @property
    def members(self) -> tuple[int, ...]:
        """Of the current view, ascending; () outside all views."""
        return tuple(sorted(self.births))

    @property
    def reachable(self) -> set[int]:
        """Members that may answer."""
        return (self.births.keys() - self.standing.suspected - self.standing.gone(self.births)) | {self.node}

    @property
    def proposer(self) -> int:
        """The lowest of them."""
        return min(self.reachable)

    @property
    def has_losses(self) -> bool:
        """Whether somebody is suspected or gone, here or for a member that told us."""
        return self.is_asked_urgently or len(self.reachable) < len(self.births)

    @property
    def wanted(self) -> bool:
        """Whether this view has to end. What was begun is carried through: members may have frozen for it."""
        return self.is_asked or self.promised >= 0 or self.has_losses

    def send(self, receiver: int, message: Message) -> None:
        """Send a message; to ourselves too."""
        if receiver != self.node:
            self.outgoing.append(Outgoing(receiver, message))
        elif isinstance(message, ViewMessage):
            self.own.append(message)

    def tell(self, node: int) -> None:
        """Send a node that is behind the newest decision, or that it is not in it; not again within a pause."""
        if self.decision is not None and self.now >= self.told.get(node, -math.inf) + FIRST_PAUSE_S:
            self.told[node] = self.now
            is_named = node in dict(self.decision.proposal.members)
            self.send(node, self.decision if is_named else Excluded(self.decision.view))

    def make_way(self) -> None:
        """Give our ballot up, and leave others time to finish theirs; longer each time, and other than theirs."""
        self.ballot = None
        share = 1 + self.members.index(self.node) / len(self.births)
        self.silent_until = self.now + FIRST_PAUSE_S * 2**self.doublings * share
        self.doublings = min(self.doublings + 1, MOST_DOUBLINGS)

    def follow(self, sender: int, ballot: int) -> None:
        """Take part in no lower ballot than a member's."""
        if ballot == self.promised:
            return
        self.promised, self.answer = ballot, None
        if sender != self.node:
            if self.ballot is not None or self.proposer == self.node:
                self.make_way()
            self.asking = Pauses(self.now + FIRST_PAUSE_S)
            self.asked_for = self.proposer, self.has_losses

    def take_prepare(self, sender: int, message: Prepare) -> None:
        """Promise and report, unless a higher ballot has our promise."""
        self.standing.learn(message.deaths)
        if message.ballot < self.promised:
            self.send(sender, Reject(self.number, message.ballot, self.promised))
            return
        self.follow(sender, message.ballot)
        self.is_frozen = self.is_frozen or message.urgent
        if self.answer is None or (self.is_frozen and not self.answer.urgent):
            report = self.application.report(self.is_frozen)
            deaths = self.standing.gossip()
            self.answer = Promise(self.number, message.ballot, self.is_frozen, self.accepted, report, deaths)
        self.send(sender, self.answer)

    def take_accept(self, sender: int, message: Accept) -> None:
        """Accept a sound proposal, unless a higher ballot has our promise."""
        if message.ballot < self.promised:
            self.send(sender, Reject(self.number, message.ballot, self.promised))
        elif not self.is_sound(message.proposal):
            log.error("view %d: node %d proposes a next view that is not sound", self.number, sender)
            self.send(sender, Reject(self.number, message.ballot, message.ballot))
        else:
            self.follow(sender, message.ballot)
            self.accepted = message.ballot, message.proposal
            self.send(sender, Accepted(self.number, message.ballot))

    def is_sound(self, proposal: Proposal) -> bool:
        """Whether the application can take it, and reads the same members from it."""
        if not self.application.acceptable(proposal.value):
            return False
        return [node for node, _ in proposal.members] == sorted(self.application.members_of(proposal.value))
