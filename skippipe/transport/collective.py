"""What collectives have in common: who takes part, what must come from whom, and what is sent when it comes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from skippipe.transport.message import Header, MalformedMessageError, MessageKind

Expected = dict[tuple[MessageKind, int, int], tuple[int, ...]]
"""What a collective must receive, each once: kind, sending node and part, and the tensor's shape."""


class Identity(NamedTuple):
    """Tells a collective from all others that a node takes part in."""

    iteration: int
    sequence: int
    """In the iteration."""
    view: int = 0
    """Among whose members."""


class Outgoing(NamedTuple):
    """A message to send."""

    receiver: int
    kind: MessageKind
    part: int
    tensor: Tensor


class Collective(ABC):
    """One collective as one of its members sees it: send what `begin` and `receive` give until it is done.

    It knows neither sockets nor clocks. What it gives may be views of its tensors.
    """

    def __init__(self, members: Sequence[int], node: int, expected: Expected) -> None:
        """`members` are nodes in the order of their ranks, `node` is this one."""
        self.members = tuple(members)
        self.node = node
        self.rank = self.members.index(node)
        self.expected = expected
        """What has not come yet."""

    @property
    def done(self) -> bool:
        """Whether all has come."""
        return not self.expected

    @abstractmethod
    def begin(self) -> Iterator[Outgoing]:
        """What is sent first."""

    def receive(self, header: Header, message: Tensor) -> Iterator[Outgoing]:
        """Take a message; what is sent for it. MalformedMessageError if it is not expected, or not any more."""
        key = header.kind, header.sender, header.part
        shape = self.expected.get(key)
        if shape is None or tuple(message.shape) != shape:
            raise MalformedMessageError(
                f"{header.kind.name} {header.part} of node {header.sender} has shape {list(message.shape)},"
                f" expected is {'none' if shape is None else list(shape)}"
            )
        del self.expected[key]
        return self.take(header, self.members.index(header.sender), message)

    @abstractmethod
    def take(self, header: Header, rank: int, message: Tensor) -> Iterator[Outgoing]:
        """Take a message that was expected from a rank; what is sent for it. Its memory is ours."""
