"""Collectives as state machines under a scheduler that delivers in any order: equal results, and nothing else taken."""

from __future__ import annotations

import random
import re
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from skippipe.transport.all_reduce import AllReduce, Exact, expected_parts, shards
from skippipe.transport.collective import Collective, Identity, Outgoing
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import HEADER, Header, MalformedMessageError, MessageKind, pack, unpack
from skippipe.transport.sharing import Sharing, Tree
from tests.attacks import Attack
from tests.cases import Layer, drives

SEEDS = some.integers(0, 2**32 - 1)


@dataclass
class Frame:
    """A message on its way: views, as the sender keeps them until they are acknowledged."""

    header: Header
    tensor: torch.Tensor

    def __post_init__(self) -> None:
        self.packed, self.payload = pack(self.header, self.tensor)
        self.original = bytes(self.payload)

    def written(self) -> tuple[Header, torch.Tensor]:
        """What arrives, if it is sent now: what was queued, also when it is sent again."""
        assert bytes(self.payload) == self.original, "its memory was written to while it was being sent"
        return unpack(np.frombuffer(bytearray(self.packed) + bytearray(self.payload), dtype=np.uint8))


@dataclass
class Node:
    """A member: runs its collectives one after another, as the torch thread does, out of a real inbox."""

    number: int
    inbox: Inbox
    collectives: deque[tuple[Identity, Collective]]
    begun: bool = False
    means: list[torch.Tensor] = field(default_factory=list)
    tables: list[list[list[float]]] = field(default_factory=list)

    def finish(self, collective: Collective) -> None:
        """Keep what a collective found; once figures are shared, the gradient is overwritten, as the optimizer does."""
        if isinstance(collective, Sharing):
            self.tables.append(collective.table.tolist())
            self.gradient.fill_(float("nan"))
        elif isinstance(collective, AllReduce):
            self.gradient = collective.gradient
            self.means.append(self.gradient.clone())


class Network:
    """Links between nodes: each in order, of any speed, and broken at any moment, after which frames come again."""

    def __init__(self, nodes: list[Node], seed: int) -> None:
        self.nodes = {node.number: node for node in nodes}
        self.random = random.Random(seed)
        self.frames: dict[tuple[int, int], deque[Frame]] = {}
        self.sent: Counter[int] = Counter()

    def send(self, node: Node, identity: Identity, messages: list[Outgoing]) -> None:
        """Queue what a node sends."""
        for outgoing in messages:
            assert outgoing.receiver != node.number
            frame = Frame(Header(outgoing.kind, *identity[:2], node.number, 0.0, outgoing.part), outgoing.tensor)
            self.sent[node.number] += len(frame.original)
            self.frames.setdefault((node.number, outgoing.receiver), deque()).append(frame)

    def deliver(self, link: tuple[int, int]) -> None:
        """The first frame of a link arrives; of a broken link it is written to no avail, and later again."""
        frame = self.frames[link][0]
        if self.random.random() < 0.2:
            frame.written()
            return
        self.frames[link].popleft()
        self.nodes[link[1]].inbox.put(*frame.written())

    def work(self, node: Node) -> bool:
        """A node's torch thread begins a collective or takes a message; whether there was anything to do."""
        if not node.collectives:
            return False
        identity, collective = node.collectives[0]
        if not node.begun:
            if node.inbox.iteration < identity.iteration:
                node.inbox.next_iteration(identity.iteration)
            node.begun = True
            self.send(node, identity, list(collective.begin()))
        elif node.inbox.arrived[identity]:
            self.send(node, identity, list(collective.receive(*node.inbox.take_arrived(identity))))
        else:
            return False
        if collective.done:
            node.collectives.popleft()
            node.finish(collective)
            node.begun = False
        return True

    def run(self) -> None:
        """Until nothing moves any more, whatever comes first."""
        while True:
            choices = [("link", link) for link, frames in self.frames.items() if frames]
            choices += [("node", node) for node in self.nodes.values()]
            self.random.shuffle(choices)
            if not any(self.step(*choice) for choice in choices):
                return

    def step(self, what: str, which) -> bool:
        """One event, or none if nothing can happen there."""
        if what == "node":
            return self.work(which)
        self.deliver(which)
        return True


def members_of(count: int, seed: int) -> list[int]:
    """Numbers of so many nodes, as of a stage: rising, with gaps."""
    return sorted(random.Random(seed).sample(range(2 * count + 3), count))


def run_iterations(members: list[int], numbers: int, most: int, iterations: int, seed: int) -> tuple[list, Network]:
    """All-reduces and sharings in turns, as training has them; each iteration's gradients, and the network after it."""
    generator = torch.Generator().manual_seed(seed)
    gradients = [
        {node: torch.randn(numbers, generator=generator) * 10 ** (node % 5) for node in members}
        for _ in range(iterations)
    ]
    nodes = []
    for node in members:
        tree = Tree(members, node)
        expected = {1: expected_parts(members, node, numbers, Exact(), most), 2: tree.expected(2)}
        work: deque[tuple[Identity, Collective]] = deque()
        for iteration in range(iterations):
            gradient = gradients[iteration][node].clone()
            work.append((Identity(iteration, 1), AllReduce(members, node, gradient, 3, Exact(), most)))
            work.append((Identity(iteration, 2), Sharing(tree, [float(node), 0.1 * iteration])))
        nodes.append(Node(node, Inbox({}, lambda sender: 0.0, collectives=expected), work))
    network = Network(nodes, seed)
    network.run()
    return gradients, network


def expected_mean(gradients: dict[int, torch.Tensor]) -> torch.Tensor:
    """The sum in the order of ranks, divided."""
    ordered = [gradients[node] for node in sorted(gradients)]
    total = ordered[0].clone()
    for gradient in ordered[1:]:
        total += gradient
    return total / 3


@settings(max_examples=60, deadline=None)
@given(some.integers(1, 7), some.integers(7, 200), some.integers(1, 40), SEEDS)
def test_all_replicas_end_with_the_sum_in_the_order_of_ranks(count: int, numbers: int, most: int, seed: int) -> None:
    members = members_of(count, seed)
    gradients, network = run_iterations(members, numbers, most, 3, seed)
    for node in network.nodes.values():
        assert not node.collectives, "it waits for ever"
        assert not any(node.inbox.arrived.values())
        for iteration, mean in enumerate(node.means):
            assert torch.equal(mean, expected_mean(gradients[iteration]))
        assert node.tables == [[[float(member), 0.1 * iteration] for member in members] for iteration in range(3)]
    # 2 (n - 1) / n of the gradient's bytes go out of each node, and few of the figures'.
    for sent in network.sent.values():
        assert sent <= 3 * (2 * 4 * (numbers * (count - 1) / count + count) + 16 * count * (count + 1))


@settings(max_examples=30, deadline=None)
@given(some.integers(1, 200), SEEDS)
def test_figures_take_two_messages_a_node_over_a_shallow_tree(count: int, seed: int) -> None:
    members = members_of(count, seed)
    trees = {node: Tree(members, node) for node in members}
    assert sum(len(tree.neighbours) for tree in trees.values()) == 2 * (count - 1)
    assert sorted(trees[members[0]].branch(0)) == list(range(count))
    for node, tree in trees.items():
        assert all(node in trees[other].neighbours for other in tree.neighbours)
        assert len(tree.children) <= 8


@pytest.mark.parametrize("numbers", [3, 7, 1000, 1 << 20])
def test_shards_cover_every_number_once_in_parts(numbers: int) -> None:
    parts = [place for shard in shards(numbers, 3, 100) for place in shard]
    assert [place.start for place in parts[1:]] == [place.stop for place in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, numbers)
    assert all(0 < place.stop - place.start <= 100 for place in parts)


GOOD = Header(MessageKind.SHARD, 0, 1, 4, 0.0, 0)
STRANGE = {
    Attack.PART_KIND: GOOD._replace(kind=MessageKind.HIDDEN),
    Attack.PART_OF_ANOTHER: GOOD._replace(sender=5),
    Attack.PART_ELSEWHERE: GOOD._replace(microbatch=7),
    Attack.PART_BEYOND: GOOD._replace(part=2),
    Attack.PART_SIZE: GOOD,
    Attack.PART_TOO_EARLY: GOOD._replace(iteration=2),
    Attack.PART_OF_OURS: GOOD._replace(sender=2),
}


@drives(*Attack.at(Layer.COLLECTIVE))
def test_what_is_not_expected_is_refused_by_name(attack: Attack) -> None:
    inbox = Inbox({}, lambda sender: 0.0, collectives={1: expected_parts([2, 4], 2, 7, Exact(), 2)})
    with pytest.raises(MalformedMessageError, match=re.escape(attack.outcome)):
        inbox.put(STRANGE[attack], torch.zeros(3 if attack is Attack.PART_SIZE else 2))
    assert not any(inbox.arrived.values())


def test_each_part_is_taken_once_an_iteration() -> None:
    inbox = Inbox({}, lambda sender: 0.0, collectives={1: expected_parts([2, 4], 2, 7, Exact(), 2)})
    inbox.put(GOOD, torch.zeros(2))
    for _ in range(2):
        with pytest.raises(MalformedMessageError, match=r"SHARD 1.0 was delivered already"):
            inbox.put(GOOD._replace(sent_at=5.0), torch.zeros(2))
        if inbox.arrived[Identity(0, 1)]:
            inbox.take_arrived(Identity(0, 1))
    inbox.put(GOOD._replace(iteration=1), torch.zeros(2))
    inbox.next_iteration(1)
    with pytest.raises(MalformedMessageError, match="delivered already"):
        inbox.put(GOOD._replace(iteration=1), torch.zeros(2))


def test_the_machines_refuse_by_name_too() -> None:
    mean = AllReduce([2, 4], 2, torch.zeros(7), 1, Exact(), 2)
    list(mean.begin())
    list(mean.receive(GOOD, torch.zeros(2)))
    for header in (GOOD, GOOD._replace(part=9), GOOD._replace(sender=2)):
        with pytest.raises(MalformedMessageError, match=r"SHARD . of node . has shape .2., expected is none"):
            mean.receive(header, torch.zeros(2))
    sharing = Sharing(Tree([2, 4], 2), [1.0])
    with pytest.raises(MalformedMessageError, match=r"FIGURES 0 of node 4 has shape \[2, 1\], expected is \[1, 1\]"):
        sharing.receive(Header(MessageKind.FIGURES, 0, 1, 4, 0.0), torch.zeros(2, 1, dtype=torch.float64))


def test_parts_of_the_gradient_are_sent_as_they_lie_in_it() -> None:
    gradient = torch.arange(7.0)
    outgoing = next(AllReduce([2, 4], 2, gradient, 1, Exact(), 2).begin())
    _, payload = pack(Header(outgoing.kind, 0, 1, 2, 0.0), outgoing.tensor)
    assert np.frombuffer(payload, np.float32).__array_interface__["data"][0] == gradient[3:].data_ptr()
    assert HEADER.size % 8 == 0


def test_a_part_is_summed_and_handed_on_before_the_next_one_has_come() -> None:
    gradients = [torch.arange(18, dtype=torch.float32) * (1 + rank) for rank in range(3)]
    nodes = [AllReduce(range(3), rank, gradient.clone(), 3, Exact(), most=2) for rank, gradient in enumerate(gradients)]
    shares = [outgoing for node in nodes[1:] for outgoing in node.begin() if outgoing.receiver == 0]
    places = nodes[0].parts[0]
    assert [share.part for share in shares] == [0, 1, 2] * 2
    for part, pair in enumerate(zip(shares[:3], shares[3:], strict=True)):
        given = [
            list(nodes[0].take(Header(MessageKind.SHARD, 0, 0, rank, 0.0, part), rank, share.tensor))
            for rank, share in enumerate(pair, start=1)
        ]
        # Nothing of the later parts is there yet.
        assert given[0] == []
        assert [(mean.receiver, mean.kind, mean.part) for mean in given[1]] == [
            (receiver, MessageKind.SUM, part) for receiver in (1, 2)
        ]
        assert torch.equal(given[1][0].tensor, 2 * gradients[0][places[part]])
