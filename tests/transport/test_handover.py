"""A replica's state arrives as it was, whatever comes first."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from skippipe.transport.handover import Handover, blank
from skippipe.transport.message import Header, MalformedMessageError, MessageKind

DONOR, JOINER = 7, 2


def header(kind: MessageKind, part: int, sender: int = DONOR) -> Header:
    return Header(kind, 9, 6, sender, 0.0, part, 4)


@settings(max_examples=50)
@given(some.integers(1, 40), some.integers(1, 12), some.integers(0, 2**32 - 1))
def test_all_parts_in_any_order(numbers: int, most: int, seed: int) -> None:
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    state = torch.randn(numbers, generator=generator)
    figures = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    donor = Handover(DONOR, JOINER, DONOR, state, figures, most)
    assert donor.done
    sent = list(donor.begin())
    assert len(sent) == 1 + -(-numbers // most)
    joiner = Handover(DONOR, JOINER, JOINER, torch.zeros(numbers), torch.zeros_like(figures), most)
    assert not list(joiner.begin())
    expected = dict(joiner.expected)
    assert expected == {(message.kind, DONOR, message.part): tuple(message.tensor.shape) for message in sent}
    chance.shuffle(sent)
    for message in sent:
        assert message.receiver == JOINER
        assert len(message.tensor) <= max(most, len(figures))
        assert not joiner.done
        assert not list(joiner.receive(header(message.kind, message.part), message.tensor.clone()))
    assert joiner.done
    assert torch.equal(joiner.numbers, state)
    assert torch.equal(joiner.figures, figures)


def test_nothing_else_is_taken_and_nothing_twice() -> None:
    joiner = blank(DONOR, JOINER, 10, (2, 3))
    part = torch.ones(10)
    for wrong, tensor in (
        (header(MessageKind.STATE, 1), part),
        (header(MessageKind.STATE, 0, sender=3), part),
        (header(MessageKind.STATE, 0), torch.ones(9)),
        (header(MessageKind.SHARD, 0), part),
    ):
        with pytest.raises(MalformedMessageError):
            joiner.receive(wrong, tensor)
    joiner.receive(header(MessageKind.STATE, 0), part)
    with pytest.raises(MalformedMessageError):
        joiner.receive(header(MessageKind.STATE, 0), part)
