"""The messages of the agreement and their bytes."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skippipe.survival.messages import (
    CLASSES,
    MOST_BIRTH,
    MOST_BYTES,
    MOST_NODES,
    MOST_NUMBER,
    Accept,
    Death,
    Decided,
    Join,
    Message,
    Prepare,
    Promise,
    Proposal,
    pack,
    unpack,
)

NODES = st.integers(0, MOST_NODES - 1)
BIRTHS = st.integers(0, MOST_BIRTH)
NUMBERS = st.integers(0, MOST_NUMBER)
DEATHS = st.dictionaries(st.tuples(NODES, BIRTHS), st.integers(-1, MOST_NUMBER), max_size=5).map(
    lambda views: tuple(Death(node, birth, views[node, birth]) for node, birth in sorted(views))
)
PROPOSALS = st.builds(
    Proposal, st.dictionaries(NODES, BIRTHS, max_size=5).map(lambda births: tuple(sorted(births.items()))), st.binary()
)
FIELDS = {
    "view": NUMBERS,
    "ballot": NUMBERS,
    "promised": NUMBERS,
    "node": NODES,
    "birth": BIRTHS,
    "left": st.integers(-1, MOST_NUMBER),
    "urgent": st.booleans(),
    "report": st.binary(),
    "proposal": PROPOSALS,
    "accepted": st.none() | st.tuples(NUMBERS, PROPOSALS),
    "deaths": DEATHS,
}
MESSAGES = st.one_of(
    [st.builds(kind, **{field.name: FIELDS[field.name] for field in dataclasses.fields(kind)}) for kind in CLASSES]
)


def test_every_message_has_its_byte() -> None:
    assert set(get_args(Message)) == set(CLASSES)


@given(MESSAGES)
def test_bytes_give_the_message_again(message: Message) -> None:
    assert unpack(pack(message)) == message


def unpack_or_refuse(data: bytes) -> None:
    """Whatever the bytes are: ValueError, or a message that has these bytes and no others."""
    try:
        message = unpack(data)
    except ValueError:
        return
    assert pack(message) == data


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_a_message(data: bytes) -> None:
    unpack_or_refuse(data)


@given(MESSAGES, st.data())
def test_changed_bytes_are_refused_or_a_message(message: Message, data: st.DataObject) -> None:
    packed = bytearray(pack(message))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(packed)))
        packed[place : place + data.draw(st.integers(0, 4))] = data.draw(
            st.binary(max_size=4) | st.just(b"\xff" * 8) | st.just(bytes(8))
        )
    unpack_or_refuse(bytes(packed))


@given(MESSAGES)
def test_cut_and_lengthened_bytes_are_refused(message: Message) -> None:
    packed = pack(message)
    for data in (packed[:-1], packed + b"\0"):
        with pytest.raises(ValueError, match=r"agreement|kind"):
            unpack(data)


LARGEST = Proposal(tuple((node, MOST_BIRTH) for node in range(MOST_NODES)), bytes(MOST_BYTES))


def test_the_largest_message_fits() -> None:
    deaths = tuple(Death(node, MOST_BIRTH, MOST_NUMBER) for node in range(MOST_NODES))
    message = Promise(MOST_NUMBER, MOST_NUMBER, True, (MOST_NUMBER, LARGEST), bytes(MOST_BYTES), deaths)
    assert unpack(pack(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Decided(1, dataclasses.replace(LARGEST, value=bytes(MOST_BYTES + 1))),
        Decided(1, dataclasses.replace(LARGEST, members=((MOST_NODES, 0),))),
        Promise(1, 1, False, None, bytes(MOST_BYTES + 1), ()),
        Prepare(-1, 1, False, ()),
        Accept(0, MOST_NUMBER + 1, LARGEST),
        Join(1, MOST_BIRTH + 1, -1, ()),
        Join(1, 1, -1, tuple(Death(1, birth, 0) for birth in range(MOST_NODES + 1))),
        Join(1, 1, -1, (Death(1, 1, -2),)),
        Join(1, 1, -2, ()),
    ],
)
def test_what_is_too_large_is_not_written(message: Message) -> None:
    with pytest.raises(ValueError, match="is not from"):
        pack(message)


@pytest.mark.parametrize("members", [((1, 0), (1, 5)), ((2, 0), (1, 0)), ((1, 0), (1, 0))])
def test_members_are_named_once_and_in_order(members: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match=r"twice|ascend"):
        unpack(pack(Decided(1, Proposal(members, b""))))
