"""Agreement over links that notice silence: how soon the others go on without a node that stands still."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from skippipe.survival.messages import Message
from skippipe.transport.buffers import BufferPool
from skippipe.transport.clocks import Clock
from skippipe.transport.connected import Surroundings
from skippipe.transport.life import Life
from skippipe.transport.work import Work
from tests.survival.process import Process
from tests.survival.simulation import World

SILENCE_S, CONNECT_S = 6.0, 60.0
AROUND = Surroundings(Clock(), Work(), BufferPool(), CONNECT_S, SILENCE_S, trains=True)
BEAT_S = AROUND.beat_seconds
"""Between heartbeats, and between two looks at how long a peer has been silent."""
HOP_S = 0.01
PROPOSERS = 2
"""Members that have links to all others, and all others to them."""
AGREEING_S, LINKING_S = 0.5, 3.0
"""After the last member that matters has noticed; until links are opened to whoever might propose."""


@dataclass
class Link:
    """A node's way to another one."""

    life: Life
    sequence: int = 0


class Talker(Process):
    """A process that opens links to the next proposers."""

    world: Wired

    def adopt(self, number: int, value: bytes) -> None:
        super().adopt(number, value)
        self.world.open_links(self.node, self.machine.members)


class Wired(World):
    """Nodes notice each other's silence by heartbeats and by frames that are not taken; the torch threads send too."""

    def __init__(self, seed: int, nodes: int) -> None:
        super().__init__(seed, nodes, nodes)
        self.links: dict[tuple[int, int], Link] = {}
        self.noticed: dict[int, float] = {}
        """When a node was first suspected by anyone."""
        self.begin()
        for node in range(nodes):
            self.open_links(node, tuple(range(nodes)))
            for step in (1, 2):
                self.link(node, (node + step) % nodes)
            self.work(node)

    def new_process(self, node: int, birth: int) -> Talker:
        return Talker(self, node, birth)

    def check_links(self) -> None:
        """The links do that."""

    def is_there(self, node: int) -> bool:
        return node in self.processes and not self.processes[node].is_stopped

    def open_links(self, node: int, members: tuple[int, ...]) -> None:
        for peer in members if node in members[:PROPOSERS] else members[:PROPOSERS]:
            if peer != node:
                self.link(node, peer)

    def link(self, node: int, peer: int) -> Link:
        if (node, peer) not in self.links:
            link = self.links[node, peer] = Link(Life(self.now))
            if self.hears(node, peer):
                self.at(HOP_S, lambda: link.life.connected(self.now))
            self.at(random.Random(node * self.nodes + peer).uniform(0, BEAT_S), lambda: self.beat(node, peer, link))
            self.at(self.random.uniform(0, BEAT_S), lambda: self.look(node, peer, link))
        return self.links[node, peer]

    def beat(self, node: int, peer: int, link: Link) -> None:
        """Send a heartbeat, which a peer that is there answers."""
        if self.is_there(node) and self.hears(node, peer) and link.life.met:
            self.at(HOP_S, lambda: link.life.answered(self.now))
        self.at(BEAT_S, lambda: self.beat(node, peer, link))

    def look(self, node: int, peer: int, link: Link) -> None:
        """Look how long a peer has been silent."""
        patience_s = SILENCE_S if link.life.met else AROUND.first_seconds
        if self.is_there(node) and link.life.silent(self.now) > patience_s:
            self.noticed.setdefault(peer, self.now)
            process = self.processes[node]
            self.event(process, lambda now: process.machine.suspect(peer, now))
        else:
            self.at(BEAT_S, lambda: self.look(node, peer, link))

    def send(self, sender: int, receiver: int, message: Message) -> None:
        self.frame(sender, receiver, lambda: self.deliver(sender, receiver, message))

    def frame(self, sender: int, receiver: int, arrive: Callable[[], None]) -> None:
        """Send a frame, which a peer that is there acknowledges."""
        link = self.link(sender, receiver)
        link.sequence += 1
        sequence = link.sequence
        link.life.queue(sequence, self.now)

        def come() -> None:
            if self.hears(sender, receiver):
                self.at(HOP_S, lambda: link.life.acknowledged(sequence, 0, self.now))
            arrive()

        self.at(HOP_S, come)

    def work(self, node: int) -> None:
        """A node's torch thread sends something now and then."""
        peers = [peer for sender, peer in self.links if sender == node]
        if self.is_there(node):
            self.frame(node, self.random.choice(peers), lambda: None)
        self.at(self.random.expovariate(0.5), lambda: self.work(node))

    def run_until(self, is_over: Callable[[], bool], end: float) -> bool:
        """Go on until something is so, which is told, or it is too late."""
        while not is_over() and self.now < end:
            self.step()
        return is_over()


def left_out_after(world: Wired, *stopped: int) -> tuple[float, float]:
    """Let nodes stand still: after how many seconds that is noticed by anyone, and the others go on without them."""
    world.run_until(lambda: False, 10 + world.random.uniform(0, BEAT_S))
    at = world.now
    for node in stopped:
        world.processes[node].is_stopped = True
    others = tuple(sorted(world.processes.keys() - set(stopped)))
    went_on = world.run_until(lambda: all(world.processes[node].machine.members == others for node in others), at + 90)
    assert went_on, {node: world.processes[node].machine.members for node in others}
    return min(world.noticed[node] for node in stopped) - at, world.now - at


@pytest.mark.parametrize("seed", range(40))
def test_a_node_that_stands_still_is_left_out_as_soon_as_it_is_noticed(seed: int) -> None:
    world = Wired(seed, nodes := 6 if seed % 2 else 20)
    noticed, agreed = left_out_after(world, random.Random(seed).randrange(nodes))
    assert SILENCE_S - BEAT_S < noticed <= SILENCE_S + BEAT_S
    # Whoever proposes looks at its own link at another time than the first one that notices.
    assert agreed <= SILENCE_S + BEAT_S + AGREEING_S


@pytest.mark.parametrize("seed", range(10))
def test_a_machine_is_left_out_though_its_nodes_would_have_proposed(seed: int) -> None:
    noticed, agreed = left_out_after(Wired(seed, 20), *range(seed % 6 + 2))
    assert noticed <= SILENCE_S + BEAT_S
    # The next proposer may not have been connected to all of them: it asks those, and hears nothing.
    assert agreed <= 2 * (SILENCE_S + BEAT_S) + LINKING_S
