"""Who takes part in a training and how it goes on, agreed on by those who do: Paxos among the members of each view.

A state machine without sockets, clocks and threads: it is told of events and times, and gives messages to send.

A view has a number, members, and a value that the application made. Members of view v decide once, by single-decree
Paxos, what view v + 1 is. Messages may be lost, repeated, late and out of order, suspicions may be wrong.

A quorum is every member that is not dead, or a strict majority of all members, dead ones counted. So any number may die
if their deaths are certain, and of two sides that only can't hear each other at most one goes on. Why no two values
are ever adopted for one number, not even by a node that dies right after:

- Two majorities share a member, which reports to the higher ballot what it accepted in the lower one.
- A dead member counts as dead in view v only if its process ended before it had begun view v + 1. Its launcher knows:
  whoever learns what view v + 1 is tells its launcher before it sends anything (Application.adopt and excluded). The
  proposer of a ballot learns it first, all others from it. What a proposer that counts as dead decided, nobody knows.
- Who counts as dead is fixed when a ballot begins, and they can answer no later ballot. A death that is heard of
  while a ballot runs counts in the next: the dead may have been the quorum of a higher ballot, their answers under way.
- A proposer is the first in its own quorums, and gives its ballot up once it promises a higher one. So if a minority
  decides because all others are dead, each later ballot of a living member asks that proposer, who is bound by its
  promise or knows what was decided.

A death of a process that had begun a newer view does not count; its launcher brings along what it had adopted
(`certainly_dead`), so nobody waits for what only the dead knew.

A process that starts again has another birth and has promised nothing; it is nobody's member until a view names it.
A member that is left out and joins again votes no more in the views before: what follows on them is decided. It says so
to whoever asks it (Join.left): those who have not heard what was decided find out without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from skippipe.survival.acceptor import Application, Outgoing
from skippipe.survival.admission import Admission
from skippipe.survival.ballot import Pauses
from skippipe.survival.messages import (
    Accept,
    Accepted,
    Ask,
    Death,
    Decided,
    Excluded,
    Join,
    Message,
    Prepare,
    Promise,
    Reject,
    ViewMessage,
)

FIRST_BIRTH = 0
"""Of all processes that begin a training together."""


class Agreement(Admission):
    """One node's part in it. Each event's method gives what is to be sent; times are seconds of any one clock."""

    def __init__(
        self,
        node: int,
        nodes: int,
        number: int,
        members: Sequence[int],
        application: Application,
        patience_s: float,
        now: float,
        birth: int = FIRST_BIRTH,
    ) -> None:
        """A member of the first view, of `nodes` in all; or with number -1, no members and a later birth, a joiner."""
        assert node in members if number >= 0 else birth > FIRST_BIRTH and not members
        super().__init__(node, nodes, birth, application, now)
        self.patience_s = patience_s
        self.begin_view(number, dict.fromkeys(members, FIRST_BIRTH))

    def begin_view(self, number: int, births: dict[int, int]) -> None:
        """Nobody has been told of it yet."""
        super().begin_view(number, births)
        self.short_since: float | None = None
        """Since when the reachable are no quorum though a change is wanted."""
        self.has_complained = False

    @property
    def next_tick(self) -> float:
        """When tick is due, inf if only an event can change anything."""
        if self.is_excluded:
            return math.inf
        if self.number < 0:
            return self.asking.due
        times = [self.telling.due] if self.outsiders() else []
        if self.ballot is not None:
            times.append(self.ballot.pauses.due)
        elif self.wanted:
            times.append(self.silent_until if self.proposer == self.node else self.asking.due)
        if self.short_since is not None and not self.has_complained:
            times.append(self.short_since + self.patience_s)
        return min(times, default=math.inf)

    def suspect(self, node: int, now: float) -> list[Outgoing]:
        """The link to a node is silent."""
        self.standing.suspected.add(node)
        return self.after(now)

    def trust(self, node: int, now: float) -> list[Outgoing]:
        """The link to a node is alive, again or for the first time."""
        self.standing.suspected.discard(node)
        return self.after(now)

    def certainly_dead(self, death: Death, decision: Decided | None, now: float) -> list[Outgoing]:
        """A launcher saw a process end; `decision` is the newest that the process had told it, None if none."""
        self.now = max(self.now, now)
        self.standing.learn([death])
        if decision is not None:
            self.take_decided(decision)
        return self.after(now)

    def want_change(self, now: float) -> list[Outgoing]:
        """The application wants another view, at leisure."""
        self.is_asked = True
        return self.after(now)

    def receive(self, sender: int, message: Message, now: float) -> list[Outgoing]:
        """A message has come from a node."""
        self.now = max(self.now, now)
        self.take(sender, message)
        return self.after(now)

    def tick(self, now: float) -> list[Outgoing]:
        """Time has passed."""
        return self.after(now)

    def after(self, now: float) -> list[Outgoing]:
        """Do what follows from an event, and give what is to be sent."""
        self.now = max(self.now, now)
        self.go_on()
        while self.own:
            message = self.own.popleft()
            if message.view == self.number:
                self.take(self.node, message)
                self.go_on()
        outgoing, self.outgoing = self.outgoing, []
        return outgoing

    def go_on(self) -> None:
        """Do whatever is due."""
        if self.is_excluded:
            return
        if self.number < 0:
            self.ask_to_join()
            return
        if self.ballot is not None:
            self.carry(self.ballot)
        elif self.wanted and self.proposer == self.node:
            if self.now >= self.silent_until:
                self.begin_ballot()
        elif self.wanted:
            self.ask_for_change()
        if self.number >= 0:
            self.watch_quorum()
            self.announce()
            self.tell_outsiders()

    def ask_for_change(self) -> None:
        """Tell the proposer; if that does not help, all: one may know of a newer view."""
        if self.asked_for != (self.proposer, self.has_losses):
            self.asked_for = self.proposer, self.has_losses
            self.asking = Pauses(self.now)
        if self.asking.elapsed(self.now):
            message = Ask(self.number, self.has_losses, self.standing.gossip())
            for member in [self.proposer] if self.asking.times == 1 else sorted(self.reachable - {self.node}):
                self.send(member, message)

    def watch_quorum(self) -> None:
        """Say it once if the reachable are no quorum for too long."""
        if not self.wanted or self.is_quorum(self.reachable, self.counted_dead()):
            self.short_since = None
        elif self.short_since is None:
            self.short_since = self.now
        elif self.now >= self.short_since + self.patience_s and not self.has_complained:
            self.has_complained = True
            self.application.no_majority(tuple(sorted(self.reachable)), self.members)

    def take(self, sender: int, message: Message) -> None:
        """Take a message."""
        match message:
            case _ if self.is_excluded or self.number < 0:
                self.take_outside(sender, message)
            case Decided():
                self.take_decided(message)
            case Excluded():
                if message.view > self.number:
                    self.leave(message.view)
            case Join():
                self.take_join(message)
            case _ if message.view < self.number:
                self.tell(sender)
            case _ if message.view > self.number:
                self.send(sender, Ask(self.number, False, ()))
            case _ if sender in self.births:
                self.take_of_this_view(sender, message)

    def take_of_this_view(self, sender: int, message: ViewMessage) -> None:
        """Take what a member of the same view says."""
        match message:
            case Prepare():
                self.take_prepare(sender, message)
            case Promise():
                self.take_promise(sender, message)
            case Reject():
                self.take_reject(sender, message)
            case Accept():
                self.take_accept(sender, message)
            case Accepted():
                self.take_accepted(sender, message)
            case Ask():
                self.standing.learn(message.deaths)
                self.is_asked = True
                self.is_asked_urgently = self.is_asked_urgently or message.urgent
