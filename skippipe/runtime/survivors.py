"""Keeps a node in step with the others about who goes on: between the agreement, the links and the torch thread."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable

from skippipe.runtime.decisions import leave_decision, read_decision
from skippipe.runtime.endpoint import Endpoint
from skippipe.runtime.restarts import of_one_launcher
from skippipe.survival.acceptor import Outgoing
from skippipe.survival.agreement import FIRST_BIRTH, Agreement
from skippipe.survival.course import Course, Report
from skippipe.survival.ending import ending, is_ending, loss_told, read_ending
from skippipe.survival.following import Planner, next_view
from skippipe.survival.messages import Death, pack, unpack
from skippipe.survival.succession import StageLostError
from skippipe.survival.view import View
from skippipe.transport.links import Links

logger = logging.getLogger(__name__)

FIRST_VIEW, NO_VIEW = 0, -1
PROPOSERS = 2
"""Members that have links to all others: the one that proposes the next view, and the one that does if it is lost."""
GATHER_SECONDS = 0.1
"""How long others that want to join are waited for once one does."""


class Survivors:
    """What a node knows of the views, and how it takes part in agreeing on the next one.

    Methods are called in the network's thread, but for those that say otherwise. What both threads use is guarded by
    the inbox's condition.
    """

    def __init__(self, endpoint: Endpoint, course: Course, links: Links, planner: Planner) -> None:
        """Without a majority for `peers.silence_seconds` the node ends.

        In the run's folder this machine's nodes leave what they have decided, for those who hear of their deaths.
        """
        self.endpoint = endpoint
        self.folder, self.patience_s = endpoint.folder, endpoint.peers.silence_seconds
        self.node, self.birth, self.nodes = endpoint.node, endpoint.birth, endpoint.nodes
        self.course = course
        self.links = links
        self.inbox = links.inbox
        self.planner = planner
        self.detected_at: float | None = None
        self.births: dict[int, int] = {}
        """The largest birth of each node's processes that are known of."""
        self.hung: set[int] = set()
        """Suspected nodes that say of themselves that they hang."""
        self.is_left_out = False
        """Whether the others have gone on without this process."""
        self.not_reached: str | None = None
        """Why this joiner could not reach somebody, or was refused."""
        self.in_reach: tuple[int, ...] = ()
        """Who is left in reach, if those are too few to go on."""
        self.agreement: Agreement
        self.timer: asyncio.TimerHandle | None = None

    @property
    def members(self) -> tuple[int, ...]:
        """Of the newest view, () for a joiner that is in none."""
        return self.course.newest.members if self.course.newest is not None else ()

    def is_here(self, node: int) -> bool:
        """Whether the newest process of a node has the same launcher as this one (any thread)."""
        birth = self.births.get(node, FIRST_BIRTH)
        return node in self.endpoint.local and of_one_launcher(birth, self.birth)

    def start(self) -> None:
        """Begin to listen (torch thread); the others are all there, or this node joins them."""
        asyncio.run_coroutine_threadsafe(self.open(), self.links.loop).result()

    async def open(self) -> None:
        """Begin to listen."""
        now, newest = self.links.loop.time(), self.course.newest
        number = newest.number if newest is not None else NO_VIEW
        patience_s, birth = self.patience_s, self.birth
        self.agreement = Agreement(self.node, self.nodes, number, self.members, self, patience_s, now, birth)
        for former in range(self.endpoint.first_birth, self.birth):
            self.hear_of_death(self.node, former)
        self.links.losses.listen(self)
        self.be_ready()
        self.tick()

    def be_ready(self) -> None:
        """Open the links over which the next view would be agreed on: finding a peer takes longer than agreeing."""
        self.links.around.trains = bool(self.members)
        first = sorted(self.members)[:PROPOSERS]
        for node in self.members if self.node in first else first:
            if node != self.node:
                self.links.sender(node)

    # What happens.

    def suspect(self, node: int, reason: str, hangs: bool = False) -> None:
        """A peer can't be reached, or it hangs; whom a joiner can't reach may not be ready for it yet."""
        if hangs:
            self.hung.add(node)
        if self.members:
            if node in self.members:
                self.note_loss()
            self.go_on(self.agreement.suspect(node, self.links.loop.time()))
        else:
            self.not_reached = reason

    def died(self, node: int, birth: int) -> None:
        """A node's process has certainly ended."""
        logger.warning("node %d has ended", node)
        if self.births.get(node, FIRST_BIRTH) <= birth:
            self.births[node] = birth
            self.links.forget(node)
            if node in self.members:
                self.note_loss()
            # Nobody needs to tell it anything, even when the next view is without it.
            self.go_on(self.agreement.suspect(node, self.links.loop.time()))
        self.hear_of_death(node, birth)

    def hear_of_death(self, node: int, birth: int) -> None:
        """Tell the agreement of a process that has ended, and of what it had decided."""
        decision = read_decision(self.folder, node, birth)
        view = FIRST_VIEW if birth == FIRST_BIRTH else NO_VIEW
        death = Death(node, birth, decision.view if decision is not None else view)
        self.go_on(self.agreement.certainly_dead(death, decision, self.links.loop.time()))

    def receive(self, sender: int, data: bytes) -> None:
        """A message of the agreement."""
        try:
            message = unpack(data)
        except ValueError as error:
            logger.warning("dropped a message of node %d: %s", sender, error)
            return
        self.go_on(self.agreement.receive(sender, message, self.links.loop.time()))

    def note_loss(self) -> None:
        """Remember when the first loss since the last view was noticed."""
        if self.detected_at is None:
            self.detected_at = self.links.loop.time()

    @property
    def detected_s(self) -> float | None:
        """The run's time at which the first loss since the last view was noticed; None if there is none."""
        if self.detected_at is None:
            return None
        return self.inbox.clock.wire(self.detected_at) + self.links.axis_offset()

    def go_on(self, outgoing: Iterable[Outgoing]) -> None:
        """Send what the agreement wants sent, and wake it when it wants to be."""
        for receiver, message in outgoing:
            self.links.send_agreement(receiver, pack(message))
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.agreement.next_tick != math.inf:
            self.timer = self.links.loop.call_at(self.agreement.next_tick, self.tick)

    def tick(self) -> None:
        """The agreement's time has come."""
        self.timer = None
        self.go_on(self.agreement.tick(self.links.loop.time()))

    # What the agreement asks of its application.

    def report(self, urgent: bool) -> bytes:
        """How far this node is; it keeps to that until the next view."""
        with self.inbox.changed:
            suspected = self.agreement.standing.suspected
            return self.course.report(urgent, suspected, self.hung & suspected).to_bytes()

    def propose(self, reports: dict[int, bytes], lost: frozenset[int]) -> bytes:
        """The next view: heirs for the lost, or joiners between two iterations."""
        known = {node: report for node, data in reports.items() if (report := self.read_report(node, data))}
        try:
            view = next_view(self.course, known, self.joiners() - known.keys(), self.planner, self.detected_s)
        except StageLostError as error:
            return ending(reports, loss_told(lost, str(error)))
        return view.to_bytes()

    def read_report(self, node: int, data: bytes) -> Report | None:
        """A member's report; None if it makes no sense: the member is taken for lost then."""
        try:
            return Report.from_bytes(data, self.nodes)
        except ValueError as error:
            logger.error("node %d reports what can't be read: %s", node, error)
            return None

    def joiners(self) -> set[int]:
        """Nodes of which a process asks to join, as far as this one knows."""
        standing = self.agreement.standing
        return {node for node, birth in standing.joining.items() if standing.is_news(node, birth)}

    def acceptable(self, value: bytes) -> bool:
        """Whether a proposal can be run, or ends the run."""
        try:
            if is_ending(value):
                read_ending(value)
            else:
                view = View.from_bytes(value, self.nodes)
                view.check_same_work(self.course.newest, self.course.view_of(view.first_iteration - 1))
        except ValueError as error:
            logger.error("a proposed view can't be run: %s", error)
            return False
        return True

    def members_of(self, value: bytes) -> tuple[int, ...]:
        """Who takes part in a proposed view, or in the end of the run; ValueError if it can't be run."""
        if is_ending(value):
            return read_ending(value)[0]
        return View.from_bytes(value, self.nodes).members

    def adopt(self, number: int, value: bytes) -> None:
        """The others have agreed: let the torch thread take the view up."""
        self.note_decision()
        if is_ending(value):
            self.fail(read_ending(value)[1])
            return
        view = View.from_bytes(value, self.nodes)
        logger.warning("view %d from iteration %d: %s", view.number, view.first_iteration, view.reason)
        gone = set(self.members) - set(view.members)
        with self.inbox.changed:
            if not self.course.adopt(view):
                self.end_left_out(view.number - 1)
                return
            self.detected_at = None
            if self.course.running is None:
                # This node joins, and what it may have begun to get in another view is void.
                self.inbox.leave_views()
            elif view.way == "boundary":
                # Whoever waits to begin an iteration.
                self.inbox.changed.notify_all()
            else:
                self.inbox.change()
        for node in gone:
            self.links.forget(node)
        for node in self.agreement.entered:
            # Nobody suspects it any more, so a link that was given up must find out anew.
            self.links.try_again(node)
        self.hung -= self.agreement.entered
        self.births |= self.agreement.births
        self.be_ready()

    def excluded(self, number: int) -> bool:
        """The others go on without this node; whether it asks to join again, since it has no state yet."""
        self.note_decision()
        with self.inbox.changed:
            joins_again = not self.course.has_state
            if joins_again:
                logger.info("view %d is without this node, which had no state yet: it asks again", number)
                self.course.give_up()
                self.inbox.leave_views()
                self.hung.clear()
        if not joins_again:
            self.end_left_out(number)
        return joins_again

    def note_decision(self) -> None:
        """Leave what was decided for those who hear of this process's death, before anybody is told of it."""
        if self.agreement.decision is not None:
            leave_decision(self.folder, self.node, self.birth, self.agreement.decision)

    def end_left_out(self, number: int) -> None:
        """End this process, which a view is without."""
        self.is_left_out = True
        self.fail(f"the other nodes have gone on without node {self.node} (view {number})")

    def joining(self, node: int) -> None:
        """Somebody wants to take part: another view, a little later."""
        logger.info("node %d asks to join", node)
        self.links.loop.call_later(GATHER_SECONDS, self.want_change)

    def found_better(self) -> None:
        """The planner has a better plan for the view that is run (any thread)."""
        self.links.loop.call_soon_threadsafe(self.want_change)

    def want_change(self) -> None:
        """Agree on a view with those who have asked to join, or on a better plan, unless that is done already."""
        newest = self.course.newest
        is_better = newest is not None and self.planner.better(newest) is not None
        if self.links.losses.listener is self and (self.joiners() or is_better):
            self.go_on(self.agreement.want_change(self.links.loop.time()))

    def no_majority(self, reachable: tuple[int, ...], members: tuple[int, ...]) -> None:
        """Too few are left in reach to go on: the others may go on without these."""
        self.in_reach = reachable
        self.fail(f"only {len(reachable)} of {len(members)} nodes can be reached, no majority")

    def fail(self, reason: str) -> None:
        """Nobody here goes on."""
        logger.error(reason)
        self.inbox.fail(reason)
