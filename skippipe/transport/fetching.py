"""Fetching a file of another node in parts, as the one that needs it sees it: a state machine without sockets."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from skippipe.transport.message import Header, MalformedMessageError, MessageKind

PART_BYTES = 1 << 22
AHEAD = 4
"""Parts that are asked for before the first of them has come, so that the link never rests."""


class Fetch:
    """One file on its way. Parts come in their order, as links keep it."""

    def __init__(self, number: int, holder: int, size: int) -> None:
        """The holder knows the file, of `size` bytes, by its number."""
        self.number = number
        self.holder = holder
        self.size = size
        self.parts = -(-size // PART_BYTES)
        self.asked = self.came = 0

    @property
    def done(self) -> bool:
        """Whether all of it has come."""
        return self.came == self.parts

    def ask(self) -> Iterator[int]:
        """Parts to ask for now."""
        while self.asked < min(self.parts, self.came + AHEAD):
            yield self.asked
            self.asked += 1

    def take(self, header: Header, data: Tensor) -> None:
        """Take the next part, (bytes,); MalformedMessageError if it is another one or of another length."""
        expected = min(PART_BYTES, self.size - PART_BYTES * self.came)
        due = (MessageKind.FILE, self.number, self.holder, self.came)
        if (header.kind, header.microbatch, header.sender, header.part) != due or tuple(data.shape) != (expected,):
            came = f"{header.kind.name} {header.microbatch}.{header.part} of node {header.sender}: {data.numel()} bytes"
            wanted = f"{self.number}.{self.came} of node {self.holder}: {expected} bytes"
            raise MalformedMessageError(f"{came}, expected is {wanted}")
        self.came += 1
