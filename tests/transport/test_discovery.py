"""Nodes that start at once find each other with few datagrams, those of one launcher with none."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from skippipe.transport import streams
from skippipe.transport.addresses import Neighbourhood
from skippipe.transport.discovery import SealedDatagrams
from skippipe.transport.handshake import ClientHandshake
from skippipe.transport.inbox import Inbox
from skippipe.transport.links import Links
from skippipe.transport.membership import Listeners, Membership
from tests.transport.test_links import LIMITS, SECRET, make_node

NODES = 24
MOST_DATAGRAMS = 20
"""Of each node, for each other one; with what published deccom repeats and leaves empty it was over 50."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many datagrams each node sends."""
    sent: Counter[int] = Counter()
    send = SealedDatagrams.sendto

    async def count_and_send(datagrams: SealedDatagrams, *arguments: Any) -> None:
        sent[id(datagrams)] += 1
        await send(datagrams, *arguments)

    monkeypatch.setattr(SealedDatagrams, "sendto", count_and_send)
    return sent


def test_nodes_that_start_at_once_find_each_other_with_few_datagrams(sent: Counter[int]) -> None:
    listeners = [Listeners.bind("127.0.0.1") for _ in range(NODES)]
    nodes = [make_node(number, NODES, own, [listeners[0].address])[0] for number, own in enumerate(listeners)]
    try:
        with ThreadPoolExecutor(NODES) as pool:
            others = [[other for other in range(NODES) if other != number] for number in range(NODES)]
            list(pool.map(lambda node, peers: node.connect(peers), nodes, others))
    finally:
        for node in nodes:
            node.close()
    assert len(sent) == NODES
    assert sum(sent.values()) <= MOST_DATAGRAMS * NODES * (NODES - 1)


async def refresh(links: Links) -> None:
    """Look for whom its table lacks, as it does every ten seconds."""
    links.discovery.refresh_table()
    # It writes in a task of its own, without waiting for anything.
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_nodes_of_one_launcher_ask_nobody_for_each_other_and_wait_for_who_is_not_up_yet(
    sent: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody is given any time but those whose sockets were bound together with ours.
    monkeypatch.setattr(streams, "CONNECT_SECONDS", 0.0)
    tried, opening, attempts = threading.Event(), ClientHandshake.opening, []

    def opens(handshake: ClientHandshake) -> bytes:
        attempts.append(handshake)
        tried.set()
        return opening(handshake)

    monkeypatch.setattr(ClientHandshake, "opening", opens)
    listeners = [Listeners.bind("127.0.0.1") for _ in range(2)]
    around = Neighbourhood({}, {node: (own.address, own.stream_port) for node, own in enumerate(listeners)})
    first, second = (
        Links(Membership(node, 2, SECRET), own, [], LIMITS, Inbox({}, lambda sender: 0.0), neighbourhood=around)
        for node, own in enumerate(listeners)
    )
    try:
        first.start()
        with ThreadPoolExecutor(1) as pool:
            connected = pool.submit(first.connect, [1])
            assert tried.wait(10)
            second.start()
            connected.result()
        second.connect([0])
        asyncio.run_coroutine_threadsafe(refresh(first), first.loop).result()
    finally:
        first.close()
        second.close()
    assert len(attempts) == 2
    assert not sent
