"""Message bytes: a fixed header and the raw bytes of one tensor, nothing that needs an interpreter to read."""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

VERSION = 3
HEADER = struct.Struct("<BBBBIIIdIIIIQII8x")
"""version, kind, encoding, dimensions, iteration, microbatch, sender, sent at in s, shape x 4, length, part, view."""
MOST_DIMENSIONS = 4

assert HEADER.size == 64, "the payload begins at an offset that every dtype is aligned to"


class Encoding(IntEnum):
    """How the numbers of a tensor are written."""

    FP32 = 0
    BF16 = 1
    INT8 = 2
    """Rows of the last dimension: a float32 scale each (largest magnitude / 127), then one signed byte a number."""
    FP64 = 3
    """Of float64 tensors, which figures are."""
    RAW = 4
    """Of uint8 tensors: bytes that are no numbers."""

    def payload_bytes(self, shape: list[int]) -> int:
        """Bytes of a tensor of this shape."""
        numbers = math.prod(shape)
        if self is Encoding.INT8:
            return numbers + 4 * (numbers // shape[-1] if numbers else 0)
        return numbers * {Encoding.FP32: 4, Encoding.BF16: 2, Encoding.FP64: 8, Encoding.RAW: 1}[self]


class MalformedMessageError(ValueError):
    """Bytes that are no message of ours."""


def whole_number(figure: float, most: int, least: int = 0) -> int:
    """A figure that a peer has shared, as a whole number; MalformedMessageError if it is none within these bounds."""
    if not (least <= figure <= most and figure == int(figure)):
        raise MalformedMessageError(f"{figure} is no whole number from {least} to {most}")
    return int(figure)


class MessageKind(IntEnum):
    """What a tensor is, and so whose turn it is to send it."""

    ACTIVATION = 1
    GRADIENT = 2
    LOST = 3
    """The node in the microbatch's place has failed; the tensor says nothing."""
    SHARD = 4
    """A part of one replica's gradient, to the replica that sums it."""
    SUM = 5
    """The part summed, from there to all other replicas."""
    FIGURES = 6
    """Rows of figures on their way to the root of a tree."""
    TABLE = 7
    """Everyone's figures on their way back."""
    HIDDEN = 8
    """The hidden state of a validation batch, from stage to stage."""
    AGREEMENT = 9
    """Bytes by which the nodes agree on who takes part (survival/messages.py)."""
    STATE = 10
    """A part of what a replica holds, to one that comes back."""
    STATE_FIGURES = 11
    """What else it knows."""
    ASK = 12
    """For a part of a file of a checkpoint; the tensor says nothing."""
    FILE = 13
    """That part's bytes."""


COLLECTIVE = frozenset(
    (
        MessageKind.SHARD,
        MessageKind.SUM,
        MessageKind.FIGURES,
        MessageKind.TABLE,
        MessageKind.HIDDEN,
        MessageKind.STATE,
        MessageKind.STATE_FIGURES,
    )
)
"""Kinds of what nodes do together (collectives.py): `microbatch` is then the collective's sequence in the iteration."""
EXACT = {
    MessageKind.FIGURES: Encoding.FP64,
    MessageKind.TABLE: Encoding.FP64,
    MessageKind.STATE_FIGURES: Encoding.FP64,
    MessageKind.AGREEMENT: Encoding.RAW,
    MessageKind.ASK: Encoding.RAW,
    MessageKind.FILE: Encoding.RAW,
}
"""Kinds whose tensors are not float32, and how they are always written."""
DTYPES = {Encoding.FP64: torch.float64, Encoding.RAW: torch.uint8}
"""Of tensors that are written so; those of all other encodings are float32."""

KINDS = {int(kind): kind for kind in MessageKind}
ENCODINGS = {int(encoding): encoding for encoding in Encoding}


class Header(NamedTuple):
    """What a message says about its tensor."""

    kind: MessageKind
    iteration: int
    microbatch: int
    sender: int
    sent_at: float
    """Wire seconds (clocks.py) at which the sending task ended; link emulation counts from here."""
    part: int = 0
    """Of what a collective sends in several."""
    view: int = 0
    """Number of the view in which it was sent (survival/view.py)."""

    @property
    def key(self) -> tuple[MessageKind, int, int]:
        """What the receiving node waits for: kind, iteration, microbatch."""
        return self.kind, self.iteration, self.microbatch


def dtype_of(kind: MessageKind) -> torch.dtype:
    """Type of a kind's tensors."""
    return DTYPES[EXACT[kind]] if kind in EXACT else torch.float32


def pack(header: Header, tensor: torch.Tensor, encoding: Encoding = Encoding.FP32) -> tuple[bytes, memoryview]:
    """Header bytes and payload of a tensor; uncompressed, the payload is a view of the tensor's own memory."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        tensor = tensor.to("cpu").contiguous()
    encoding = EXACT.get(header.kind, encoding)
    assert tensor.dtype == dtype_of(header.kind)
    assert 0 < tensor.dim() <= MOST_DIMENSIONS
    payload = encode(tensor, encoding)
    # Missing dimensions are written in front, so that the last one stays the row that int8 scales.
    shape = [1] * (MOST_DIMENSIONS - tensor.dim()) + list(tensor.shape)
    packed = HEADER.pack(
        VERSION,
        header.kind,
        encoding,
        tensor.dim(),
        header.iteration,
        header.microbatch,
        header.sender,
        header.sent_at,
        *shape,
        len(payload),
        header.part,
        header.view,
    )
    return packed, payload


def encode(tensor: torch.Tensor, encoding: Encoding) -> memoryview:
    """The tensor's bytes."""
    if encoding in (Encoding.FP32, Encoding.FP64, Encoding.RAW):
        # NumPy's views cost a tenth of torch's, which small messages would notice.
        return tensor.numpy().reshape(-1).view(np.uint8).data
    if encoding is Encoding.INT8:
        rows = tensor.reshape(-1, tensor.shape[-1])
        scales = rows.abs().amax(1).clamp_min(1e-30) / 127
        numbers = (rows / scales[:, None]).round().to(torch.int8)
        return torch.cat([scales.view(torch.uint8), numbers.reshape(-1).view(torch.uint8)]).numpy().data
    return tensor.to(torch.bfloat16).reshape(-1).view(torch.uint8).numpy().data


def decode(data: NDArray[np.uint8], encoding: Encoding, shape: list[int]) -> torch.Tensor:
    """The tensor of a message's bytes; uncompressed, it shares their memory."""
    if encoding in (Encoding.FP32, Encoding.FP64):
        dtype = np.float32 if encoding is Encoding.FP32 else np.float64
        return torch.from_numpy(np.ndarray(shape, dtype, data.data, HEADER.size))
    raw = torch.from_numpy(data[HEADER.size :])
    if encoding is Encoding.RAW:
        return raw.view(shape)
    if encoding is Encoding.BF16:
        return raw.view(torch.bfloat16).view(shape).float()
    row_count = math.prod(shape[:-1])
    scales = raw[: 4 * row_count].view(torch.float32)
    numbers = raw[4 * row_count :].view(torch.int8).view(row_count, shape[-1])
    return (numbers.float() * scales[:, None]).view(shape)


def kind_of(packed: bytes) -> MessageKind:
    """Kind of a message that we have packed, by its header's bytes."""
    return KINDS[packed[1]]


def unpack(data: NDArray[np.uint8]) -> tuple[Header, torch.Tensor]:
    """Header and tensor of a message; MalformedMessageError if they disagree."""
    if len(data) < HEADER.size:
        raise MalformedMessageError(f"{len(data)} bytes are too few for a header")
    fields = HEADER.unpack_from(data.data)
    version, kind, code, dimensions, iteration, microbatch, sender, sent_at, *padded, length, part, view = fields
    if version != VERSION:
        raise MalformedMessageError(f"version {version}, expected {VERSION}")
    if kind not in KINDS or code not in ENCODINGS or not 0 < dimensions <= MOST_DIMENSIONS:
        raise MalformedMessageError(f"kind {kind}, encoding {code} or {dimensions} dimensions are unknown")
    if not math.isfinite(sent_at):
        raise MalformedMessageError("its time is not a number")
    encoding, missing = ENCODINGS[code], MOST_DIMENSIONS - dimensions
    if EXACT.get(KINDS[kind], encoding) is not encoding or (encoding in DTYPES and kind not in EXACT):
        raise MalformedMessageError(f"{KINDS[kind].name} written as {encoding.name}")
    shape = padded[missing:]
    if 0 in shape or padded[:missing] != [1] * missing:
        raise MalformedMessageError(f"shape {padded} with {dimensions} dimensions")
    size, came = encoding.payload_bytes(shape), len(data) - HEADER.size
    if length != size or came != size:
        raise MalformedMessageError(f"shape {shape} needs {size} bytes, it says {length}, {came} came")
    return Header(KINDS[kind], iteration, microbatch, sender, sent_at, part, view), decode(data, encoding, shape)
