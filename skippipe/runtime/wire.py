"""Message bytes: a fixed header and the raw bytes of one tensor, nothing that needs an interpreter to read."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray

VERSION = 1
HEADER = struct.Struct("<BBBBIIIdIIIIQ16x")
"""version, kind, dtype, dimensions, iteration, microbatch, sender, sent at (Unix s), shape x 4, payload length."""
MOST_DIMENSIONS = 4
DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16)

assert HEADER.size == 64, "the payload begins at an offset that every dtype is aligned to"


class MalformedMessageError(ValueError):
    """Bytes that are no message of ours."""


class MessageKind(IntEnum):
    """Which way a tensor walks its path."""

    ACTIVATION = 1
    GRADIENT = 2


@dataclass(frozen=True)
class Header:
    """What a message says about its tensor."""

    kind: MessageKind
    iteration: int
    microbatch: int
    sender: int
    sent_at: float
    """Unix time in seconds at which the sending task ended; link emulation counts from here."""

    @property
    def key(self) -> tuple[MessageKind, int, int]:
        """What the receiving node waits for: kind, iteration, microbatch."""
        return self.kind, self.iteration, self.microbatch


def pack(header: Header, tensor: torch.Tensor) -> tuple[bytes, memoryview]:
    """Header bytes and a view of the tensor's own memory (copied only where it is not contiguous on the CPU)."""
    tensor = tensor.detach().to("cpu").contiguous()
    assert tensor.dtype in DTYPES
    assert tensor.dim() <= MOST_DIMENSIONS
    payload = tensor.reshape(-1).view(torch.uint8).numpy().data
    shape = list(tensor.shape) + [1] * (MOST_DIMENSIONS - tensor.dim())
    packed = HEADER.pack(
        VERSION,
        header.kind,
        DTYPES.index(tensor.dtype),
        tensor.dim(),
        header.iteration,
        header.microbatch,
        header.sender,
        header.sent_at,
        *shape,
        len(payload),
    )
    return packed, payload


def unpack(data: NDArray[np.uint8]) -> tuple[Header, torch.Tensor]:
    """Header and tensor of a message, sharing the memory of `data`; MalformedMessageError where they disagree."""
    if len(data) < HEADER.size:
        raise MalformedMessageError(f"{len(data)} bytes are too few for a header")
    fields = HEADER.unpack_from(data.data)
    version, kind, dtype, dimensions, iteration, microbatch, sender, sent_at, *shape, length = fields
    if version != VERSION:
        raise MalformedMessageError(f"version {version}, expected {VERSION}")
    if kind not in tuple(MessageKind) or dtype >= len(DTYPES) or dimensions > MOST_DIMENSIONS:
        raise MalformedMessageError(f"kind {kind}, dtype {dtype} or {dimensions} dimensions are unknown")
    if not math.isfinite(sent_at):
        raise MalformedMessageError("its time is not a number")
    size = DTYPES[dtype].itemsize * math.prod(shape)
    if length != size or len(data) != HEADER.size + length:
        came = len(data) - HEADER.size
        raise MalformedMessageError(f"shape {shape} needs {size} bytes, it says {length}, {came} came")
    raw = torch.from_numpy(data)[HEADER.size :]
    tensor = raw.view(DTYPES[dtype]).view(shape[:dimensions]) if length else torch.empty(0)
    return Header(MessageKind(kind), iteration, microbatch, sender, sent_at), tensor
