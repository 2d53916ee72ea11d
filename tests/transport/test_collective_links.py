"""Collectives over real links: connections may break in the middle, and a lost peer ends the wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from skippipe.transport.all_reduce import AllReduce, Exact, expected_parts
from skippipe.transport.collective import Identity
from skippipe.transport.inbox import PeerLostError
from skippipe.transport.links import Links
from skippipe.transport.sharing import Sharing, Tree
from tests.transport.link_pair import Setup, Way, open_pair


class FlipNow:
    """Damages one byte of what a relay passes on, about every so many bytes, so that connections break."""

    def __init__(self, every: int) -> None:
        self.every, self.passed, self.flips = every, 0, 0

    def __call__(self, data: bytearray) -> None:
        self.passed += len(data)
        if self.passed > self.every:
            self.passed = 0
            self.flips += 1
            data[len(data) // 2] ^= 1


def expect(links: Links, numbers: int) -> None:
    """Let a node's inbox take an all-reduce of two nodes, and their figures."""
    parts = expected_parts([0, 1], links.node, numbers, Exact())
    links.inbox.collectives = {1: parts, 2: Tree([0, 1], links.node).expected(1)}


def test_connections_that_break_in_the_middle_change_nothing() -> None:
    damage = FlipNow(every=3 << 20)
    gradients = [torch.randn(1 << 22) for _ in range(2)]
    expected = (gradients[0] + gradients[1]) / 2
    found: list[torch.Tensor] = []
    with open_pair(Setup(forth=Way(damage=damage))) as pair, ThreadPoolExecutor() as threads:
        for links in (pair.sender, pair.receiver):
            expect(links, len(expected))

        def run(links: Links) -> list[list[float]]:
            gradient = gradients[links.node].clone()
            mean = AllReduce([0, 1], links.node, gradient, 2, Exact())
            links.run(mean, Identity(0, 1))
            found.append(gradient.clone())
            sharing = Sharing(Tree([0, 1], links.node), [float(links.node)])
            links.run(sharing, Identity(0, 2))
            gradient.fill_(float("nan"))
            return sharing.table.tolist()

        tables = list(threads.map(run, (pair.sender, pair.receiver)))
    assert damage.flips > 1
    assert tables == [[[0.0], [1.0]]] * 2
    assert all(torch.equal(gradient, expected) for gradient in found)


def test_a_lost_peer_ends_the_wait_at_once() -> None:
    with open_pair() as pair:
        for links in (pair.sender, pair.receiver):
            expect(links, 1000)
        threading.Timer(0.2, pair.sender.inbox.fail, ["node 1 can't be reached"]).start()
        with pytest.raises(PeerLostError, match="node 1 can't be reached"):
            pair.sender.run(AllReduce([0, 1], 0, torch.zeros(1000), 2, Exact()), Identity(0, 1))
