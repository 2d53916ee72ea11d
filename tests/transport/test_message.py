"""Messages survive the wire, and nothing else gets through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from skippipe.transport.message import (
    DTYPES,
    EXACT,
    HEADER,
    Encoding,
    Header,
    MalformedMessageError,
    MessageKind,
    dtype_of,
    pack,
    unpack,
)

headers = some.builds(
    Header,
    kind=some.sampled_from(MessageKind),
    iteration=some.integers(0, 2**32 - 1),
    microbatch=some.integers(0, 2**32 - 1),
    sender=some.integers(0, 2**32 - 1),
    sent_at=some.floats(0, 1e10),
    part=some.integers(0, 2**32 - 1),
    view=some.integers(0, 2**32 - 1),
)


def to_bytes(header: Header, tensor: torch.Tensor, encoding: Encoding = Encoding.FP32) -> np.ndarray:
    packed, payload = pack(header, tensor, encoding)
    return np.frombuffer(bytearray(packed) + bytes(payload), dtype=np.uint8).copy()


shapes = some.lists(some.integers(1, 5), min_size=1, max_size=4)
COMPRESSED = [Encoding.FP32, Encoding.BF16, Encoding.INT8]
LARGEST_ERROR = {Encoding.FP32: 0.0, Encoding.BF16: 2**-8, Encoding.INT8: 1 / 254}
"""Of a number, in parts of its row's largest magnitude."""
KIND_OF = {
    Encoding.FP32: MessageKind.ACTIVATION,
    Encoding.FP64: MessageKind.FIGURES,
    Encoding.RAW: MessageKind.AGREEMENT,
}
"""A kind whose tensors are written so."""


@given(headers, shapes, some.sampled_from(COMPRESSED), some.floats(1e-6, 1e6))
def test_a_message_arrives_as_it_was_sent(header: Header, shape: list[int], encoding: Encoding, size: float) -> None:
    tensor = (size * torch.randn(shape)).to(dtype_of(header.kind))
    received, copy = unpack(to_bytes(header, tensor, encoding))
    assert received == header
    assert (copy.shape, copy.dtype) == (tensor.shape, tensor.dtype)
    bound = (0.0 if header.kind in EXACT else LARGEST_ERROR[encoding]) * tensor.double().abs().amax(-1, keepdim=True)
    assert ((copy.double() - tensor.double()).abs() <= 1.001 * bound).all()


def test_compression_saves_bytes() -> None:
    tensor = torch.randn(8, 64, 64)
    header = Header(MessageKind.ACTIVATION, 0, 0, 0, 0.0)
    sizes = [len(pack(header, tensor, encoding)[1]) for encoding in COMPRESSED]
    assert sizes == [4 * tensor.numel(), 2 * tensor.numel(), tensor.numel() + 4 * 8 * 64]


def test_tensors_are_packed_in_place_and_unpacked_in_place() -> None:
    tensor = torch.zeros(4, 4)
    _, payload = pack(Header(MessageKind.GRADIENT, 0, 0, 0, 0.0), tensor)
    tensor[0, 0] = 1.0
    assert bytes(payload[:4]) == np.float32(1.0).tobytes()
    data = to_bytes(Header(MessageKind.GRADIENT, 0, 0, 0, 0.0), tensor)
    _, copy = unpack(data)
    data[HEADER.size :] = 0
    assert not copy.any()


@given(some.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        unpack(np.frombuffer(data, dtype=np.uint8))


@settings(max_examples=300)
@given(headers, some.integers(0, HEADER.size - 1), some.integers(0, 255), some.integers(0, 40))
def test_an_altered_header_is_refused_or_still_describes_the_bytes(
    header: Header, place: int, value: int, cut: int
) -> None:
    data = to_bytes(header, torch.ones(2, 3, dtype=dtype_of(header.kind)))
    data[place] = value
    data = data[: len(data) - cut]
    try:
        _, tensor = unpack(data)
    except MalformedMessageError:
        return
    assert Encoding(data[2]).payload_bytes(list(tensor.shape)) == len(data) - HEADER.size


@pytest.mark.parametrize("kind", MessageKind)
def test_a_kind_is_written_as_its_type_asks(kind: MessageKind) -> None:
    header = Header(kind, 0, 0, 0, 0.0)
    data = to_bytes(header, torch.ones(2, 4, dtype=dtype_of(kind)))
    assert unpack(data)[1].dtype == dtype_of(kind)
    for other in {Encoding.FP32, Encoding.FP64, Encoding.RAW} - {EXACT.get(kind, Encoding.FP32)}:
        numbers = torch.ones(2, 4, dtype=DTYPES.get(other, torch.float32))
        packed, payload = pack(header._replace(kind=KIND_OF[other]), numbers)
        changed = np.frombuffer(bytearray(packed) + bytes(payload), dtype=np.uint8).copy()
        changed[1] = kind
        with pytest.raises(MalformedMessageError, match=f"{kind.name} written as {other.name}"):
            unpack(changed)
