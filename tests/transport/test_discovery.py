"""Nodes that start at once find each other with few datagrams, however many they are."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from skippipe.transport.discovery import SealedDatagrams
from skippipe.transport.membership import Listeners
from tests.transport.test_links import make_node

NODES = 24
MOST_DATAGRAMS = 20
"""Of each node, for each other one; with what published deccom repeats and leaves empty it was over 50."""


def test_nodes_that_start_at_once_find_each_other_with_few_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: Counter[int] = Counter()
    send = SealedDatagrams.sendto

    async def count_and_send(datagrams: SealedDatagrams, *arguments: Any) -> None:
        sent[id(datagrams)] += 1
        await send(datagrams, *arguments)

    monkeypatch.setattr(SealedDatagrams, "sendto", count_and_send)
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
