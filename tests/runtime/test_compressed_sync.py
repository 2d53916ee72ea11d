"""The compressed sync of replicas: whatever comes first, they end equal to the bit, and as one process computes it."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from skippipe.config import Encoding
from skippipe.model.gradient_codec import GradientCodec
from skippipe.reference import CompressedReplicas
from skippipe.runtime.gradients import Exchange, Group
from skippipe.schedule import Plan
from skippipe.transport.all_reduce import AllReduce, Exact, PartFormat
from skippipe.transport.message import Header

MEMBERS, NUMBERS, VISITS, MOST = (2, 4, 7), 2000, 3, 300
FP32_ROUNDING = 5e-3
"""Of sums of gradients up to 5,000; bf16 would leave out 10, int8 20."""


class Link:
    """Messages from node to node in order, whose memory must not change before they arrive."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Header, torch.Tensor, torch.Tensor]] = []

    def send(self, header: Header, message: torch.Tensor) -> None:
        self.waiting.append((header, message, message.clone()))

    def arrive(self) -> tuple[Header, torch.Tensor]:
        header, message, sent = self.waiting.pop(0)
        assert message.numpy().tobytes() == sent.numpy().tobytes(), "its memory was written to while it was sent"
        return header, sent


def all_reduce(gradients: dict[int, torch.Tensor], forms: dict[int, PartFormat], seed: int) -> None:
    """Every member's gradient becomes the mean, messages arriving in an order that the seed chooses."""
    rng = random.Random(seed)
    members = {node: AllReduce(MEMBERS, node, gradients[node], VISITS, forms[node], MOST) for node in gradients}
    links = {(a, b): Link() for a in members for b in members if a != b}
    begun: set[int] = set()
    while choices := [node for node in members if node not in begun] + [way for way in links if links[way].waiting]:
        chosen = rng.choice(choices)
        if isinstance(chosen, int):
            node, out = chosen, members[chosen].begin()
            begun.add(node)
        elif chosen[1] not in begun:
            continue
        else:
            node, out = chosen[1], members[chosen[1]].receive(*links[chosen].arrive())
        for receiver, kind, part, message in out:
            links[node, receiver].send(Header(kind, 0, 1, node, 0.0, part), message)
    assert all(member.done for member in members.values())


def random_gradients(generator: torch.Generator) -> dict[int, torch.Tensor]:
    return {node: torch.randn(NUMBERS, generator=generator) * 10.0 ** (node - 4) for node in MEMBERS}


@pytest.mark.parametrize("encoding", ["bf16", "int8"])
@settings(max_examples=25, deadline=None)
@given(seed=some.integers(0, 2**32 - 1))
def test_replicas_end_equal_to_the_bit_and_as_one_process_computes_it(encoding: Encoding, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codecs = {node: GradientCodec(encoding, NUMBERS) for node in MEMBERS}
    # The parts' borders are not those of a part of the shipped size: the reference must cut alike.
    reference = CompressedReplicas({node: GradientCodec(encoding, NUMBERS) for node in MEMBERS}, NUMBERS, MOST)
    true, found = torch.zeros(NUMBERS).double(), torch.zeros(NUMBERS).double()
    for iteration in range(6):
        gradients = random_gradients(generator)
        exact = sum((gradient.double() for gradient in gradients.values()), torch.zeros(NUMBERS).double()) / VISITS
        reference.zero()
        for node in MEMBERS:
            reference.collect(node, gradients[node].clone())
        all_reduce(gradients, dict(codecs), seed + iteration)
        mean = reference.mean(VISITS)
        for node in MEMBERS:
            assert gradients[node].numpy().tobytes() == mean.numpy().tobytes()
        if iteration == 3:
            continue  # dropped
        reference.commit()
        for codec in codecs.values():
            codec.commit()
        true, found = true + exact, found + mean.double()
    # What is missing, however many iterations there were, is what the nodes keep; an owner's is divided already.
    left = torch.zeros(NUMBERS).double()
    for codec, own in zip(codecs.values(), reference.shards, strict=True):
        left += codec.left_out.double() / VISITS
        for place in own:
            left[place] += codec.left_out[place].double() * (1 - 1 / VISITS)
    torch.testing.assert_close(found + left, true, rtol=0, atol=FP32_ROUNDING)


def test_an_exact_sync_is_what_it_was() -> None:
    gradients = random_gradients(torch.Generator().manual_seed(1))
    first, second, third = (gradients[node].clone() for node in MEMBERS)
    all_reduce(gradients, dict.fromkeys(MEMBERS, Exact()), 0)
    assert all(torch.equal(gradient, (first + second + third) / VISITS) for gradient in gradients.values())


def test_the_inbox_expects_the_bytes_of_the_encoding() -> None:
    plan = Plan(((0, 1), (2,)), ((0, 2), (1, 2)), {}, (0.0, 0.0), 0.0, 0.0)
    expected: dict[Encoding, tuple[int, ...]] = {"fp32": (1000,), "bf16": (500,), "int8": (254,)}
    for encoding, shape in expected.items():
        codec = GradientCodec(encoding, 2000) if encoding != "fp32" else None
        group = Group(plan, 0, 2000, [], codec)
        assert set(group.expected({})[Exchange.GRADIENT].values()) == {shape}
    # Alone in its stage, a node has nobody to write to.
    assert Group(plan, 2, 2000, [], GradientCodec("int8", 2000)).codec is None
