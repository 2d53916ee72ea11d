"""How long a link looks for a peer that is not there."""

from __future__ import annotations

import asyncio

import pytest

from skippipe.transport.buffers import BufferPool
from skippipe.transport.clocks import Clock, ClockOffset
from skippipe.transport.connected import Connected, Surroundings
from skippipe.transport.sender import Sender
from skippipe.transport.work import Work

CONNECT_S, SILENCE_S = 600.0, 0.2


@pytest.mark.parametrize("trains", [False, True])
def test_a_peer_that_was_never_connected_to_may_take_its_time_only_before_training(trains: bool) -> None:
    lost: list[int] = []
    until: list[float] = []

    async def look() -> None:
        around = Surroundings(Clock(), Work(), BufferPool(), CONNECT_S, SILENCE_S, trains)
        tried = asyncio.Event()

        async def connect(deadline: float, offset: ClockOffset) -> Connected:
            until.append(deadline - sender.life.heard_at)
            tried.set()
            raise ConnectionRefusedError

        sender = Sender(3, connect, lambda node, reason: lost.append(node), around)
        await (sender.task if trains else tried.wait())
        sender.task.cancel()

    asyncio.run(look())
    assert until == pytest.approx([SILENCE_S if trains else CONNECT_S] * len(until))
    assert lost == ([3] if trains else [])
