"""What goes to several peers goes out in step over slow links; nobody waits for whom nothing moves."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
import torch

from skippipe.transport.in_step import FAST, LEAST_STEP_BYTES, MOST_STEP_BYTES, InStep, Speed, Steps
from skippipe.transport.message import Header, MessageKind, pack

STEP, RECORD, WHOLE = 1 << 14, 1 << 16, 1 << 23


def header(kind: MessageKind) -> bytes:
    """A message's header of a kind."""
    return pack(Header(kind, 0, 1, 0, 0.0), torch.zeros(1))[0]


@pytest.mark.parametrize("seed", range(5))
def test_no_peer_is_more_than_a_step_ahead_whoever_is_faster(seed: int) -> None:
    chance, steps = random.Random(seed), Steps()
    sent = dict.fromkeys(range(4), 0)
    for peer in sent:
        steps.join(peer)
    for _ in range(1000):
        (peer,) = chance.choices(range(4), [1, 10, 10, 50])
        if steps.is_last(peer):
            steps.add(peer, STEP)
            sent[peer] += STEP
        assert max(sent.values()) - min(sent.values()) <= STEP
    assert min(sent.values()) > 0
    # One has nothing more to get; whoever comes then begins beside the last.
    steps.leave(0)
    steps.join(9)
    assert steps.is_last(9)
    assert min(steps.sent.values()) >= min(sent[peer] for peer in (1, 2, 3))


@pytest.mark.parametrize(
    ("speed", "step"), [(1e6, LEAST_STEP_BYTES), (12.5e6, LEAST_STEP_BYTES), (120e6, 240_000), (2 * FAST, None)]
)
def test_steps_are_for_slow_links_and_longer_on_faster_ones(speed: float, step: int | None) -> None:
    measured, now = Speed(), 5.0
    for _ in range(2):
        # What lies between is no time in which anything was to be sent.
        now += 100.0
        measured.begin(now)
        for _ in range(200):
            now += 0.001
            measured.wrote(int(0.001 * speed), now)
    assert measured.step == (step if step is None else pytest.approx(step, rel=0.01))
    assert measured.step is None or measured.step <= MOST_STEP_BYTES


def small_pair() -> tuple[socket.socket, socket.socket]:
    """A connection that takes little before somebody reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    for connection in (ours, theirs):
        connection.setblocking(False)
    return ours, theirs


async def write_beside_one_who_takes_nothing(kind: MessageKind, patience: float, leaves: bool) -> int:
    """Send WHOLE to a peer that reads and to one that does not, which `leaves` at last; the most that one was ahead."""
    loop, in_step = asyncio.get_running_loop(), InStep(patience)
    in_step.speed.step = STEP

    async def write(peer: int, connection: socket.socket) -> None:
        with in_step.writer(peer, connection, header(kind)) as send:
            # Steps stay as long as they are.
            in_step.speed.begin(float("inf"))
            for _ in range(WHOLE // RECORD):
                await send(bytes(RECORD))

    (ours, theirs), (stuck, silent) = small_pair(), small_pair()
    with ours, theirs, stuck, silent:
        tasks = [asyncio.create_task(write(1, ours)), asyncio.create_task(write(2, stuck))]
        if leaves:
            loop.call_later(0.2, tasks[1].cancel)
        got = ahead = 0
        while got < WHOLE:
            got += len(await loop.sock_recv(theirs, RECORD))
            if in_step.steps.sent.keys() >= {1, 2}:
                ahead = max(ahead, in_step.steps.sent[1] - in_step.steps.sent[2])
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not in_step.steps.sent
    return ahead


def test_one_who_takes_nothing_holds_the_others_up_until_it_leaves() -> None:
    ahead = asyncio.run(write_beside_one_who_takes_nothing(MessageKind.SHARD, 600.0, leaves=True))
    assert 0 < ahead <= STEP


def test_nobody_waits_for_ever_for_one_who_takes_nothing() -> None:
    asyncio.run(write_beside_one_who_takes_nothing(MessageKind.SHARD, 0.05, leaves=False))


def test_only_the_parts_of_all_reduces_go_out_in_step() -> None:
    asyncio.run(write_beside_one_who_takes_nothing(MessageKind.ACTIVATION, 600.0, leaves=False))


def test_a_socket_holds_no_more_than_a_step_unsent_while_links_are_slow() -> None:
    async def unsent(kind: MessageKind, step: int | None) -> int:
        in_step, (ours, theirs) = InStep(600.0), small_pair()
        in_step.speed.step = step
        with ours, theirs, in_step.writer(1, ours, header(kind)):
            return ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)

    assert asyncio.run(unsent(MessageKind.SHARD, STEP)) == STEP
    usual = asyncio.run(unsent(MessageKind.ACTIVATION, STEP))
    assert asyncio.run(unsent(MessageKind.SHARD, None)) == usual != STEP
