"""Frames arrive whole and once over a real socket, however they are cut; replayed or altered ones end it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from skippipe.transport.buffers import BufferPool
from skippipe.transport.framing import FRAME, FrameReader
from skippipe.transport.identity import AuthenticationError, Session
from skippipe.transport.message import HEADER
from skippipe.transport.sender import ONE_WRITE_BYTES, frame_bytes, send_in_parts

KEY = b"k" * 32
HEAD = bytes(range(HEADER.size))
SIZES = (0, 7, 60_000, ONE_WRITE_BYTES + 1, 3_000_001, 5)
FIRST_OF_PAYLOAD = FRAME.size + HEADER.size


def payload(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number - 1])


def everything(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(1 << 20), b""))


async def sent_frames(session: Session) -> list[bytes]:
    """What a sender writes for a frame of each size."""
    frames = []
    for number, size in enumerate(SIZES, start=1):
        frame = (number, HEAD, memoryview(payload(number)))
        if size <= ONE_WRITE_BYTES:
            frames.append(frame_bytes(frame, session))
            continue
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reading = asyncio.create_task(asyncio.to_thread(everything, theirs))
        await send_in_parts(frame, ours, session)
        ours.close()
        frames.append(await reading)
    return frames


async def received(data: bytes, session: Session, cuts: Callable[[], int]) -> tuple[list[tuple[int, bytes]], Exception]:
    """The frames that a reader hands on until the data end, and why it stopped."""
    frames = []

    def take(sequence: int, body: NDArray[np.uint8]) -> None:
        frames.append((sequence, body.tobytes()))

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        reader = FrameReader(theirs, session, HEADER.size + max(SIZES), BufferPool(), take)
        reader.ended.add_done_callback(lambda _: theirs.close())
        view = memoryview(data)
        with contextlib.suppress(BrokenPipeError):
            while len(view):
                part, view = view[: (cut := cuts())], view[cut:]
                await asyncio.get_running_loop().sock_sendall(ours, part)
                await asyncio.sleep(0)
        ours.close()
        with pytest.raises((ConnectionError, AuthenticationError)) as caught:
            await reader.ended
    return frames, caught.value


@pytest.mark.parametrize("key", [KEY, None], ids=["authenticated", "open"])
@pytest.mark.parametrize("longest", [97, 100_000, 10_000_000])
def test_frames_arrive_whole_however_they_are_cut(key: bytes | None, longest: int) -> None:
    generator = random.Random(longest)

    async def exchange() -> tuple[list[tuple[int, bytes]], Exception]:
        data = b"".join(await sent_frames(Session(key)))
        return await received(data, Session(key), lambda: generator.randint(1, longest))

    frames, end = asyncio.run(exchange())
    assert frames == [(number, HEAD + payload(number)) for number in range(1, len(SIZES) + 1)]
    assert isinstance(end, ConnectionError)


@pytest.mark.parametrize("number", [2, 5], ids=["small", "large"])
@pytest.mark.parametrize("place", ["replayed", "left out", "sequence", "head", "payload", "last byte", "another key"])
def test_a_forged_frame_is_not_handed_on(number: int, place: str) -> None:
    async def exchange() -> tuple[list[tuple[int, bytes]], Exception]:
        frames = await sent_frames(Session(b"x" * 32 if place == "another key" else KEY))
        forged = bytearray(frames[number - 1])
        at = {"sequence": 0, "head": FIRST_OF_PAYLOAD - 1, "payload": FIRST_OF_PAYLOAD, "last byte": len(forged) - 1}
        if place in at:
            forged[at[place]] ^= 1
        frames[number - 1] = b"" if place == "left out" else bytes(forged)
        if place == "replayed":
            frames.insert(number, frames[number - 1])
        return await received(b"".join(frames), Session(KEY), lambda: 1 << 20)

    frames, end = asyncio.run(exchange())
    assert isinstance(end, AuthenticationError)
    true_ones = {"replayed": number, "another key": 0}.get(place, number - 1)
    assert frames == [(i, HEAD + payload(i)) for i in range(1, true_ones + 1)]
