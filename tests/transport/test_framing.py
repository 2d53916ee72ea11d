"""Frames arrive whole and once, however they are cut, and go on after a break; replayed or altered ones end it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from skippipe.transport.buffers import BufferPool
from skippipe.transport.framing import (
    ONE_WRITE_BYTES,
    START,
    FrameReceiver,
    Incoming,
    frame_record,
    frame_records,
)
from skippipe.transport.identity import AuthenticationError
from skippipe.transport.message import HEADER, MalformedMessageError
from skippipe.transport.records import HEAD, MOST_CONTENT_BYTES, PART_BYTES, Opener, RecordKind, Sealer
from tests.attacks import Attack
from tests.cases import Layer, drives

KEY = b"k" * 32
HEADER_BYTES = bytes(range(HEADER.size))
SIZES = (0, 7, 60_000, ONE_WRITE_BYTES + 1, 3_000_001, 5)


def payload(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number - 1])


def records_from(number: int, offset: int, sealer: Sealer) -> Iterator[bytes]:
    """The records of one frame, from a place in its body on."""
    frame = (number, HEADER_BYTES, memoryview(payload(number)))
    if SIZES[number - 1] <= ONE_WRITE_BYTES:
        yield frame_record(frame, sealer)
    else:
        yield from map(bytes, frame_records(frame, sealer, offset, BufferPool()))


class Receiving:
    """The receiving end across connections, and what it delivered."""

    def __init__(self, most_bytes: int = HEADER.size + max(SIZES)) -> None:
        self.incoming = Incoming()
        self.most_bytes = most_bytes
        self.bodies: list[bytes] = []
        self.beats: list[bytes] = []

    def connection(self, key: bytes | None) -> FrameReceiver:
        def deliver(body: NDArray[np.uint8]) -> None:
            self.bodies.append(body.tobytes())

        return FrameReceiver(Opener(key), self.incoming, self.most_bytes, BufferPool(), deliver, self.beats.append)


def feed(receiver: FrameReceiver, data: bytes, cut: Callable[[], int]) -> None:
    """Give a connection's bytes to its receiving end, so many at a time at most."""
    view = memoryview(data)
    while len(view):
        room = receiver.stream.room()
        count = min(len(room), len(view), cut())
        room[:count] = view[:count]
        view = view[count:]
        receiver.stream.received(count)


@pytest.mark.parametrize("key", [KEY, None], ids=["sealed", "open"])
@pytest.mark.parametrize("longest", [97, 100_000, 10_000_000])
def test_frames_arrive_whole_however_they_are_cut(key: bytes | None, longest: int) -> None:
    generator, sealer, receiving = random.Random(longest), Sealer(key), Receiving()
    data = b"".join(record for number in range(1, len(SIZES) + 1) for record in records_from(number, 0, sealer))
    feed(receiving.connection(key), data, lambda: generator.randint(1, longest))
    assert receiving.bodies == [HEADER_BYTES + payload(number) for number in range(1, len(SIZES) + 1)]


@pytest.mark.parametrize("seed", range(20))
def test_broken_connections_lose_and_repeat_nothing_and_go_on_in_the_middle_of_a_frame(seed: int) -> None:
    generator, receiving, sent = random.Random(seed), Receiving(), 0
    while receiving.incoming.delivered < len(SIZES):
        sealer, receiver, incoming = Sealer(KEY), receiving.connection(KEY), receiving.incoming
        offset, first = incoming.filled, incoming.delivered + 1
        data = b""
        for number in range(first, len(SIZES) + 1):
            for record in records_from(number, offset if number == first else 0, sealer):
                data += record
                if generator.random() < 0.2:
                    data += sealer.seal(RecordKind.BEAT, b"beat")
        data = data[: generator.randrange(2_000_000)]
        sent += len(data)
        feed(receiver, data, lambda: generator.randint(1, 1 << 17))
        assert receiver.progress >= receiving.incoming.filled
    assert receiving.bodies == [HEADER_BYTES + payload(number) for number in range(1, len(SIZES) + 1)]
    assert set(receiving.beats) <= {b"beat"}


LENGTHS = {Attack.LONGEST_LENGTH: 0xFFFFFF, Attack.LENGTH_BEYOND: MOST_CONTENT_BYTES + 1}


@drives(*(attack for attack in Attack.at(Layer.RECORD) if attack not in LENGTHS))
def test_a_forged_record_is_not_handed_on(attack: Attack) -> None:
    which, _, place = attack.name.partition("_")
    number = 5 if which == "LONG" else 2
    sealer, receiving = Sealer(b"x" * 32 if attack is Attack.ANOTHER_KEY else KEY), Receiving()
    records = [[*records_from(i, 0, sealer)] for i in range(1, len(SIZES) + 1)]
    forged = bytearray(records[number - 1][-1])
    at = {"HEAD": 0, "FIRST_BYTE": HEAD.size, "END": len(forged) - 17, "LAST_BYTE": len(forged) - 1}
    if place in at:
        forged[at[place]] ^= 1
    records[number - 1][-1] = b"" if place == "LEFT_OUT" else bytes(forged)
    if place == "REPLAYED":
        records[number - 1].append(bytes(forged))
    with pytest.raises(AuthenticationError, match=attack.outcome):
        feed(receiving.connection(KEY), b"".join(b"".join(group) for group in records), lambda: 1 << 20)
    true_ones = {"REPLAYED": number, "KEY": 0}.get(place, number - 1)
    assert receiving.bodies == [HEADER_BYTES + payload(i) for i in range(1, true_ones + 1)]


@drives(*LENGTHS)
def test_a_length_is_refused_before_it_is_received(attack: Attack) -> None:
    with pytest.raises(AuthenticationError, match=attack.outcome):
        feed(Receiving().connection(KEY), HEAD.pack(RecordKind.PART << 24 | LENGTHS[attack]), lambda: 4)


def frame(sequence: int, length: int, offset: int = 0, body: bytes = b"") -> bytes:
    return START.pack(sequence, length, offset) + body


RECORDS: dict[Attack, list[tuple[RecordKind, bytes]]] = {
    Attack.FRAME_WITHOUT_START: [(RecordKind.FRAME, b"short")],
    Attack.FRAME_SKIPPED: [(RecordKind.FRAME, frame(2, 100))],
    Attack.FRAME_ZERO: [(RecordKind.FRAME, frame(0, 100))],
    Attack.FRAME_TOO_SHORT: [(RecordKind.FRAME, frame(1, 10))],
    Attack.FRAME_TOO_LONG: [(RecordKind.FRAME, frame(1, 2**63))],
    Attack.FRAME_NOT_BEGUN: [(RecordKind.FRAME, frame(1, 100, 70))],
    Attack.FRAME_OVERFULL: [(RecordKind.FRAME, frame(1, 64, 0, bytes(65)))],
    Attack.PART_OF_NOTHING: [(RecordKind.PART, b"of nothing")],
    Attack.PART_TOO_LONG: [(RecordKind.FRAME, frame(1, 100)), (RecordKind.PART, bytes(101))],
    Attack.WRONG_WAY: [(RecordKind.STATE, bytes(16))],
}


@drives(*Attack.at(Layer.FRAME))
def test_what_breaks_the_order_is_refused_even_from_a_peer(attack: Attack) -> None:
    sealer, receiving = Sealer(KEY), Receiving()
    data = b"".join(sealer.seal(kind, content) for kind, content in RECORDS[attack])
    with pytest.raises(MalformedMessageError, match=attack.outcome):
        feed(receiving.connection(KEY), data, lambda: 1 << 20)
    assert receiving.bodies == []


def test_a_part_of_the_largest_size_is_sealed_in_place() -> None:
    body = np.random.default_rng(0).bytes(2 * PART_BYTES)
    receiving = Receiving(most_bytes=HEADER.size + len(body))
    records = frame_records((1, HEADER_BYTES, memoryview(body)), Sealer(KEY), 0, BufferPool())
    feed(receiving.connection(KEY), b"".join(map(bytes, records)), lambda: 1 << 22)
    assert receiving.bodies == [HEADER_BYTES + body]
