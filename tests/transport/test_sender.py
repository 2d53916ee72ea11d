"""How long a link looks for a peer that is not there."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from types import SimpleNamespace
from typing import Any

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


def test_a_peer_that_is_lost_and_comes_back_again_and_again_leaves_nothing_behind() -> None:
    made: list[weakref.ref[Connected]] = []

    async def come_and_go() -> None:
        async def connect(deadline: float, offset: ClockOffset) -> Connected:
            ours, theirs = socket.socketpair()
            theirs.close()
            session: Any = SimpleNamespace(opener=None, sealer=SimpleNamespace(seal=lambda kind, content: content))
            connected = Connected(ours, session, 0, 0)
            made.append(weakref.ref(connected))
            return connected

        around = Surroundings(Clock(), Work(), BufferPool(), CONNECT_S, CONNECT_S, True)
        sender = Sender(3, connect, lambda node, reason: None, around)
        for count in range(1, 21):
            while len(made) < count:
                await asyncio.sleep(0)
            sender.let_go()
            sender.wake()
        while len(made) < 21:
            await asyncio.sleep(0)
        gc.collect()
        assert sum(one() is not None for one in made) <= 2
        sender.task.cancel()

    asyncio.run(come_and_go())


def test_time_in_which_this_process_stood_still_is_no_silence_of_the_peer() -> None:
    silence_s, stood_s = 0.6, 3.0
    lost_at: list[float] = []

    async def stand_still() -> float:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        is_there = asyncio.Event()

        async def connect(deadline: float, offset: ClockOffset) -> Connected:
            if is_there.is_set():
                raise ConnectionRefusedError
            is_there.set()
            session: Any = SimpleNamespace(opener=None, sealer=SimpleNamespace(seal=lambda kind, content: content))
            return Connected(ours, session, 0, 0)

        around = Surroundings(Clock(), Work(), BufferPool(), CONNECT_S, silence_s, True)
        sender = Sender(3, connect, lambda node, reason: lost_at.append(time.monotonic()), around)
        await is_there.wait()
        await asyncio.sleep(around.beat_seconds / 4)
        time.sleep(stood_s)
        woke_at = time.monotonic()
        # It never answers, so that it is lost in the end, and not as soon as this process goes on.
        await sender.task
        theirs.close()
        return woke_at

    woke_at = asyncio.run(stand_still())
    assert len(lost_at) == 1
    assert lost_at[0] - woke_at > silence_s / 3
