"""A world in which each event happens and each message comes when the test says so."""

from __future__ import annotations

from collections.abc import Callable

from skippipe.survival.agreement import Agreement, Outgoing
from skippipe.survival.messages import Message, Prepare, Promise
from tests.survival.simulation import World

LATER = 20.0
"""Seconds after which everything is due again."""


class Story(World):
    """Messages wait until they are delivered; nobody notices anything alone."""

    def __init__(self, nodes: int, machine: type[Agreement] = Agreement, first: int | None = None) -> None:
        super().__init__(0, nodes, nodes if first is None else first, machine)
        self.under_way: list[tuple[int, int, Message]] = []
        self.begin()

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """What would come by itself does not."""

    def send(self, sender: int, receiver: int, message: Message) -> None:
        self.under_way.append((sender, receiver, message))

    def do(self, node: int, action: Callable[[Agreement, float], list[Outgoing]]) -> None:
        """An event of a node."""
        process = self.processes[node]
        self.event(process, lambda now: action(process.machine, now))

    def suspect(self, node: int, *peers: int) -> None:
        for peer in peers:
            self.do(node, lambda machine, now, peer=peer: machine.suspect(peer, now))

    def want_change(self, node: int) -> None:
        self.do(node, lambda machine, now: machine.want_change(now))

    def wait(self, node: int, seconds: float = LATER) -> None:
        self.now += seconds
        self.do(node, lambda machine, now: machine.tick(now))

    def end(self, *nodes: int) -> None:
        for node in nodes:
            self.kill(self.processes[node])

    def hear_of_deaths(self, node: int) -> None:
        """From the launcher, of all at once, as it may be by gossip."""
        self.machine_of(node).standing.learn(death for death, _ in self.deaths)
        for death, decision in self.deaths:
            self.do(node, lambda machine, now, d=death, v=decision: machine.certainly_dead(d, v, now))

    def pass_on(self, sender: int, kind: type[Message], *receivers: int) -> None:
        """Deliver what a node has sent of a kind to others; at least one message to each."""
        for receiver in receivers:
            found = [entry for entry in self.under_way if entry[:2] == (sender, receiver) and type(entry[2]) is kind]
            assert found, f"{sender} has sent {receiver} no {kind.__name__}"
            for entry in found:
                self.under_way.remove(entry)
                self.deliver(*entry)

    def lose_all(self) -> None:
        self.under_way.clear()

    def settle(self) -> None:
        """Deliver everything, in order, until nobody says anything more."""
        for _ in range(1000):
            if not self.under_way:
                return
            self.deliver(*self.under_way.pop(0))
        raise AssertionError("they talk for ever")

    def prepare(self, proposer: int, *members: int) -> None:
        """The proposer's first round with these members."""
        self.pass_on(proposer, Prepare, *members)
        for member in members:
            self.pass_on(member, Promise, proposer)

    def machine_of(self, node: int) -> Agreement:
        return self.processes[node].machine

    def kinds(self, sender: int, receiver: int) -> set[type[Message]]:
        """Of what is under way between two nodes."""
        return {type(message) for *pair, message in self.under_way if pair == [sender, receiver]}

    @property
    def views(self) -> dict[int, tuple[int, tuple[int, ...]]]:
        """Each living node's view: number and members."""
        return {node: (process.machine.number, process.machine.members) for node, process in self.processes.items()}
