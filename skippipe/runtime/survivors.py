"""Keeps a node in step with the others about who goes on: between the agreement, the links and the torch thread."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from skippipe.runtime.figures import Rows
from skippipe.schedule import Plan
from skippipe.survival.acceptor import Outgoing
from skippipe.survival.agreement import FIRST_BIRTH, Agreement
from skippipe.survival.messages import Death, Decided, pack, unpack
from skippipe.survival.succession import StageLostError
from skippipe.survival.view import View
from skippipe.transport.inbox import PeerLostError
from skippipe.transport.links import Links

logger = logging.getLogger(__name__)

END = b"!"
"""Begins a proposal to end the run, instead of a view; the members and the reason follow."""
FIRST_VIEW = 0
PROPOSERS = 2
"""Members that have links to all others: the one that proposes the next view, and the one that does if it is lost."""
Succeed = Callable[[View, int, Collection[int]], Plan]
"""The plan of those who are left of a view, for an iteration; StageLostError if they can't go on."""


class Survivors:
    """What a node knows of the views, and how it takes part in agreeing on the next one.

    Methods are called in the network's thread, but for those that say otherwise. What both threads use is guarded by
    the inbox's condition.
    """

    def __init__(
        self, node: int, nodes: int, folder: Path, first: View, links: Links, succeed: Succeed, patience_s: float
    ) -> None:
        """`first` is the view that the run begins with; without a majority for `patience_s` it ends.

        In the run's folder this machine's nodes leave what they have decided, for those who hear of their deaths.
        """
        self.folder = folder
        self.node = node
        self.nodes = nodes
        self.links = links
        self.inbox = links.inbox
        self.succeed = succeed
        self.patience_s = patience_s
        self.newest = first
        """The last view that was decided; the torch thread may not have taken it up yet."""
        self.committed = first.committed
        """The last iteration of which everyone's figures are here."""
        self.figures: Rows = {}
        """Those figures."""
        self.frozen = False
        """Whether this node has told how far it is, so that it may not get further before the others have agreed."""
        self.detected_at: float | None = None
        self.agreement: Agreement
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen (torch thread); the others are all there."""
        asyncio.run_coroutine_threadsafe(self.open(), self.links.loop).result()

    async def open(self) -> None:
        """Begin to listen."""
        now = self.links.loop.time()
        first = self.newest
        self.agreement = Agreement(self.node, self.nodes, first.number, first.members, self, self.patience_s, now)
        self.links.losses.listen(self)
        self.be_ready()

    def be_ready(self) -> None:
        """Open the links over which the next view would be agreed on: finding a peer takes longer than agreeing."""
        first = sorted(self.newest.members)[:PROPOSERS]
        for node in self.newest.members if self.node in first else first:
            if node != self.node:
                self.links.sender(node)

    def commit(self, iteration: int, figures: Rows) -> None:
        """Note that everyone's figures of an iteration are here (torch thread); from then on it can't be redone.

        ViewChangedError if the others have agreed on another view meanwhile, PeerLostError if nobody goes on.
        """
        with self.inbox.changed:
            self.inbox.changed.wait_for(lambda: not self.frozen or self.inbox.interrupted)
            if self.inbox.failure is not None:
                raise PeerLostError(self.inbox.failure)
            self.inbox.check()
            self.committed, self.figures = iteration, figures

    def suspect(self, node: int, reason: str) -> None:
        """A peer can't be reached, or does nothing any more."""
        self.note_loss()
        self.go_on(self.agreement.suspect(node, self.links.loop.time()))

    def died(self, node: int) -> None:
        """A node's process has certainly ended."""
        logger.warning("node %d has ended", node)
        self.note_loss()
        decision = read_decision(self.folder, node)
        death = Death(node, FIRST_BIRTH, decision.view if decision is not None else FIRST_VIEW)
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

    def go_on(self, outgoing: Iterable[Outgoing]) -> None:
        """Send what the agreement wants sent, and wake it when it wants to be."""
        for receiver, message in outgoing:
            self.links.send_agreement(receiver, pack(message))
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.agreement.next_tick != float("inf"):
            self.timer = self.links.loop.call_at(self.agreement.next_tick, self.tick)

    def tick(self) -> None:
        """The agreement's time has come."""
        self.timer = None
        self.go_on(self.agreement.tick(self.links.loop.time()))

    # What the agreement asks of its application.

    def report(self, urgent: bool) -> bytes:
        """How far this node is; if the change is urgent, it gets no further before the next view."""
        with self.inbox.changed:
            self.frozen = self.frozen or urgent
            return json.dumps([self.committed, [[node, *row] for node, row in self.figures.items()]]).encode()

    def propose(self, reports: dict[int, bytes], lost: frozenset[int]) -> bytes:
        """The next view: heirs for the lost; all go on after the last iteration that anyone has committed."""
        committed, figures = max((read_report(report) for report in reports.values()), key=lambda told: told[0])
        before, gone = self.newest, tuple(sorted(lost))
        try:
            plan = self.succeed(before, committed + 1, gone)
        except StageLostError as error:
            return END + json.dumps([sorted(reports), f"{name_nodes(gone)} lost, and {error}"]).encode()
        detected_s = None if self.detected_at is None else self.detected_at
        view = View(
            number=self.agreement.number + 1,
            first_iteration=committed + 1,
            way="takeover",
            reason=f"lost: {', '.join(map(str, gone))}" if gone else "nobody is lost after all",
            plan=plan,
            committed=committed,
            figures={node: tuple(row) for node, row in figures.items()},
            lost=gone,
            detected_s=detected_s,
        )
        return view.to_bytes()

    def acceptable(self, value: bytes) -> bool:
        """Whether a proposal can be run, or ends the run."""
        try:
            self.members_of(value)
        except ValueError as error:
            logger.error("a proposed view can't be run: %s", error)
            return False
        return True

    def members_of(self, value: bytes) -> tuple[int, ...]:
        """Who takes part in a proposed view, or in the end of the run; ValueError if it can't be run."""
        if not value.startswith(END):
            return View.from_bytes(value, self.nodes).members
        members, _ = json.loads(value[len(END) :])
        return tuple(int(member) for member in members)

    def adopt(self, number: int, value: bytes) -> None:
        """The others have agreed: let the torch thread take the view up."""
        self.leave_decision()
        if value.startswith(END):
            self.fail(str(json.loads(value[len(END) :])[1]))
            return
        view = View.from_bytes(value, self.nodes)
        logger.warning("view %d: %s", view.number, view.reason)
        gone = set(self.newest.members) - set(view.members)
        with self.inbox.changed:
            self.newest, self.frozen, self.detected_at = view, False, None
            if view.committed > self.committed:
                self.committed, self.figures = view.committed, {node: list(row) for node, row in view.figures.items()}
            self.inbox.change()
        for node in gone:
            self.links.forget(node)
        self.be_ready()

    def excluded(self, number: int) -> None:
        """The others go on without this node."""
        self.leave_decision()
        self.fail(f"the other nodes have gone on without node {self.node} (view {number})")

    def joining(self, node: int) -> None:
        """Somebody wants to take part: no view has room for another node yet."""
        logger.warning("node %d asks to join, which is not possible", node)

    def no_majority(self, reachable: tuple[int, ...], members: tuple[int, ...]) -> None:
        """Too few are left in reach to go on: the others may go on without these."""
        self.fail(f"only {len(reachable)} of {len(members)} nodes can be reached, no majority")

    def leave_decision(self) -> None:
        """Leave what was decided where this machine's nodes find it if this one dies before it could tell anybody."""
        assert self.agreement.decision is not None
        path = decision_file(self.folder, self.node)
        written = path.with_suffix(".tmp")
        written.write_bytes(pack(self.agreement.decision))
        written.replace(path)

    def fail(self, reason: str) -> None:
        """Nobody here goes on."""
        logger.error(reason)
        self.inbox.fail(reason)


def decision_file(folder: Path, node: int) -> Path:
    """Where a node leaves the newest view that it knows of."""
    return folder / f"node-{node}.view"


def read_decision(folder: Path, node: int) -> Decided | None:
    """The newest view that a node of this machine knew of when it died; None if that was the first."""
    path = decision_file(folder, node)
    if not path.exists():
        return None
    decision = unpack(path.read_bytes())
    assert isinstance(decision, Decided)
    return decision


def read_report(report: bytes) -> tuple[int, Rows]:
    """The last committed iteration of a node, and its figures by node."""
    committed, rows = json.loads(report)
    return int(committed), {int(node): [float(figure) for figure in row] for node, *row in rows}


def name_nodes(nodes: Collection[int]) -> str:
    """Nodes in words."""
    listed = ", ".join(map(str, nodes))
    return f"node {listed} is" if len(nodes) == 1 else f"nodes {listed} are"
