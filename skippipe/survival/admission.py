"""Who gets into views, and who is left out of them and told: what a member says to joiners, and what they say."""

from __future__ import annotations

from skippipe.survival.acceptor import Application
from skippipe.survival.ballot import FIRST_PAUSE_S, Pauses
from skippipe.survival.messages import Accept, Ask, Decided, Excluded, Join, Message, Prepare, ViewMessage
from skippipe.survival.proposer import Proposer


class Admission(Proposer):
    """A node's way into a view and out of it, and what it does for the ways of others."""

    def __init__(self, node: int, nodes: int, birth: int, application: Application, now: float) -> None:
        """Of so many `nodes` in all."""
        super().__init__(node, application, now)
        self.nodes, self.birth = nodes, birth
        self.contact = node
        """The node that a joiner asked last."""
        self.left = -1
        """The newest view that has begun without this process after others had begun with it."""

    def begin_view(self, number: int, births: dict[int, int]) -> None:
        """Nobody has been told of it yet."""
        super().begin_view(number, births)
        self.telling = Pauses(self.now)
        self.announced: set[tuple[int, int]] = set()
        """Joiners that the application knows of."""

    # As a member.

    def outsiders(self) -> list[int]:
        """Nodes that we, as the proposer, have to tell that they are no members."""
        return self.standing.outsiders(self.births, self.nodes) if self.proposer == self.node else []

    def tell_outsiders(self) -> None:
        """Tell them, again after each pause."""
        outsiders = self.outsiders()
        for node in outsiders if outsiders and self.telling.elapsed(self.now) else []:
            self.send(node, Excluded(self.number))

    def take_join(self, message: Join) -> None:
        """A process asks to join: the proposer has to know of it."""
        node, birth = message.node, message.birth
        self.standing.learn(message.deaths)
        if any(death.view > self.number for death in message.deaths):
            # Its predecessor had begun a newer view, which the joiner may know.
            self.send(node, Ask(self.number, False, ()))
        if self.births.get(node) == birth:
            if message.left > self.number:
                self.standing.leavers.add(node)
                # It has left for a view that it may know, and whose other members may be gone.
                self.send(node, Ask(self.number, False, ()))
            else:
                self.tell(node)
        elif node < self.nodes and self.standing.is_news(node, birth):
            self.standing.joining[node] = max(birth, self.standing.joining.get(node, birth))
            if self.proposer != self.node:
                self.send(self.proposer, message)

    def announce(self) -> None:
        """Tell our application, if we are the proposer, who asks to join; before this view too."""
        for node, birth in self.standing.joining.items() - self.announced if self.proposer == self.node else ():
            if self.standing.is_news(node, birth):
                self.announced.add((node, birth))
                self.application.joining(node)

    # Into a view and out of it.

    def take_decided(self, message: Decided) -> None:
        """Begin a newer view that names us; end if it does not. A joiner waits for one that does."""
        if message.view <= (self.number if self.decision is None else self.decision.view):
            return
        self.decision = message
        self.told.clear()
        if self.is_excluded:
            return
        # What names us may come later than what says that we were left out after that.
        if dict(message.proposal.members).get(self.node) == self.birth and message.view > self.left:
            self.begin_view(message.view, dict(message.proposal.members))
            self.application.adopt(message.view, message.proposal.value)
        elif self.number >= 0:
            self.leave(message.view)

    def leave(self, number: int) -> None:
        """A view has begun without us."""
        if self.application.excluded(number):
            self.left = number
            # A fault that is over must not follow us into the next view; one that is not shows itself again.
            self.standing.suspected.clear()
            self.begin_view(-1, {})
        else:
            self.is_excluded = True

    # As a joiner, or for ever outside.

    def ask_to_join(self) -> None:
        """Ask the next node that may be alive; another one after each pause."""
        if self.now < self.asking.due:
            return
        self.asking = Pauses(self.now + FIRST_PAUSE_S)
        others = [(self.contact + step) % self.nodes for step in range(1, self.nodes + 1)]
        alive = [node for node in others if node != self.node and node not in self.standing.suspected]
        if alive:
            self.contact = alive[0]
            self.send(self.contact, self.join_message())

    def join_message(self) -> Join:
        """How we ask to join."""
        return Join(self.node, self.birth, self.left, self.standing.gossip())

    def take_outside(self, sender: int, message: Message) -> None:
        """Take a message when we are in no view: members that are behind what we know must not wait for us."""
        if isinstance(message, Decided):
            self.take_decided(message)
        elif isinstance(message, Join):
            if self.decision is not None and (message.node, message.birth) in self.decision.proposal.members:
                self.tell(message.node)
        elif isinstance(message, ViewMessage):
            if self.decision is not None and message.view < self.decision.view:
                self.tell(sender)
            elif isinstance(message, Prepare | Accept) and not self.is_excluded:
                # Our predecessor is asked, or we have left; an Ask may be the answer to such a message of ours.
                self.send(sender, self.join_message())
