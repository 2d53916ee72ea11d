"""Gradients as bf16 and int8: rounded to the nearest, right at both ends of fp32, and nothing lost over iterations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from skippipe.config import SYNC_BLOCK, Encoding
from skippipe.model.gradient_codec import LEAST_SCALE, GradientCodec, blocks, halves
from skippipe.schedule.costs import sync_ratio

ENCODINGS: tuple[Encoding, ...] = ("bf16", "int8")
LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).smallest_subnormal)
both = pytest.mark.parametrize("encoding", ENCODINGS)
lengths = some.integers(1, 3 * SYNC_BLOCK + 5)
seeds = some.integers(0, 2**32 - 1)


def written(codec: GradientCodec, part: torch.Tensor, begin: int = 0) -> torch.Tensor:
    """What readers get of a part; the writer must see the same, to the bit."""
    own = part.clone()
    read = codec.read(codec.write(begin, own), len(part))
    assert own.numpy().tobytes() == read.numpy().tobytes()
    return read


def numbers(seed: int, length: int) -> torch.Tensor:
    """Numbers of all magnitudes that fp32 has, zeros, denormals and whole blocks of them among them."""
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.0, 1.0, 30.0])
    values = rng.normal(size=length) * 10.0 ** np.clip(rng.normal(rng.uniform(-44, 37), spread, length), -46, 37)
    values[rng.random(length) < rng.choice([0.0, 0.5, 1.0], p=[0.5, 0.4, 0.1])] = 0.0
    return torch.from_numpy(values.astype(np.float32))


@both
@settings(deadline=None, max_examples=200)
@given(seed=seeds, length=lengths)
def test_numbers_are_rounded_to_the_nearest_and_the_rest_is_kept(encoding: Encoding, seed: int, length: int) -> None:
    part, codec = numbers(seed, length), GradientCodec(encoding, length)
    read = written(codec, part)
    assert torch.isfinite(read).all()
    if encoding == "bf16":
        assert torch.equal(read, part.bfloat16().float())
    for begin in range(0, length, SYNC_BLOCK):
        block, back = part[begin : begin + SYNC_BLOCK].double(), read[begin : begin + SYNC_BLOCK].double()
        half = block.abs() * 2**-8 if encoding == "bf16" else torch.full_like(block, float(block.abs().max()) / 253)
        assert ((block - back).abs() <= half.clamp_min(LEAST_SCALE / 2)).all()
    codec.commit()
    # fp32 holds what is left over, to the bit unless it is a denormal's part.
    assert ((codec.left_out.double() - (part.double() - read.double())).abs() <= 1e-7 * part.abs() + SMALLEST).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_ties_go_to_the_even_number(sign: int) -> None:
    codec = GradientCodec("int8", 6)
    part = sign * torch.tensor([127.0 / (1 - 2**-22), 0.0, 0.5, 1.5, 2.5, 126.5])
    scales, signed = blocks(codec.write(0, part.clone()), 6)
    assert scales.tolist() == [1.0]
    assert signed.tolist() == [sign * number for number in (127, 0, 0, 2, 2, 126)]
    exact, half = 1.0, 2**-8
    bf16 = GradientCodec("bf16", 2)
    message = bf16.write(0, sign * torch.tensor([exact + half, exact + 3 * half]))
    assert halves(message, 2).tolist() == [sign * exact, sign * (exact + 4 * half)]


@both
def test_zeros_denormals_and_the_largest_numbers_come_back(encoding: Encoding) -> None:
    for value in (0.0, SMALLEST, 1e-40, LEAST_SCALE, 127 * LEAST_SCALE, 1.0, 3e38, -3e38):
        part = torch.full((SYNC_BLOCK + 3,), value)
        read = written(GradientCodec(encoding, len(part)), part)
        assert ((read - part).abs() <= max(abs(value) / 128, LEAST_SCALE / 2)).all(), value
    largest = torch.tensor([LARGEST, -LARGEST, 0.0])
    read = written(GradientCodec(encoding, 3), largest)
    # bf16's largest number is smaller: to the nearest, this is infinite, and the iteration will be dropped.
    expected = [math.inf, -math.inf, 0.0] if encoding == "bf16" else [LARGEST, -LARGEST, 0.0]
    assert read.tolist() == pytest.approx(expected, rel=1e-6)


@both
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, SYNC_BLOCK, 2 * SYNC_BLOCK + 1])
def test_what_is_not_finite_is_not_hidden_and_harms_no_later_iteration(
    encoding: Encoding, value: float, place: int
) -> None:
    part = torch.randn(2 * SYNC_BLOCK + 2)
    codec = GradientCodec(encoding, len(part))
    written(codec, part)
    codec.commit()
    before = codec.left_out.clone()
    poisoned = part.clone()
    poisoned[place] = value
    assert not torch.isfinite(codec.read(codec.write(0, poisoned), len(part))).all()
    # The iteration is dropped: no commit. The next one goes on from where the last good one ended.
    assert torch.equal(codec.left_out, before)
    again = GradientCodec(encoding, len(part))
    again.left_out.copy_(before)
    assert torch.equal(written(codec, part), written(again, part))


@both
@settings(deadline=None, max_examples=20)
@given(seed=seeds, length=lengths)
def test_the_mean_of_what_was_read_becomes_the_true_mean(encoding: Encoding, seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    mean = torch.from_numpy(rng.normal(size=length).astype(np.float32) * 1e-3)
    codec, read, true = GradientCodec(encoding, length), torch.zeros(length).double(), torch.zeros(length).double()
    for iteration in range(200):
        part = mean + torch.from_numpy(rng.normal(size=length).astype(np.float32))
        true += part
        read += written(codec, part)
        codec.commit()
        if iteration % 10 == 7:
            written(codec, torch.full((length,), 1e9))  # dropped
    rounding = 200 * 2**-22  # fp32's own, of sums and differences
    assert torch.allclose(true - read, codec.left_out.double(), rtol=0, atol=rounding)
    # What is missing is the rounding of a single iteration, however many there were.
    assert float((true - read).abs().max()) <= 0.05


@both
def test_parts_are_written_as_the_whole_if_their_borders_are_those_of_blocks(encoding: Encoding) -> None:
    whole = torch.randn(3 * SYNC_BLOCK + 7)
    together, apart = (GradientCodec(encoding, len(whole)) for _ in range(2))
    for _ in range(3):
        places = [slice(begin, begin + SYNC_BLOCK) for begin in range(0, len(whole), SYNC_BLOCK)]
        parts = [written(apart, whole[place], place.start) for place in places]
        assert torch.equal(torch.cat(parts), written(together, whole))
        together.commit()
        apart.commit()
    assert torch.equal(together.left_out, apart.left_out)


@both
def test_a_message_has_the_bytes_that_the_cost_model_counts(encoding: Encoding) -> None:
    length = 1000 * SYNC_BLOCK
    (words,) = GradientCodec(encoding, length).shape(length)
    assert words / length == sync_ratio(encoding)
