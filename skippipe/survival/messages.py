"""The messages of the agreement on views, and their bytes: fields of fixed width, nothing that needs an interpreter."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MOST_NODES = 4096
MOST_BYTES = 4 << 20
"""Of a value, and of a report."""
MOST_NUMBER = 1 << 52
"""Of views and ballots."""
MOST_BIRTH = (1 << 64) - 1
WHOLE, LENGTH = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True, order=True)
class Death:
    """A process of a node has ended, as the launcher saw that had started it."""

    node: int
    birth: int
    """Which of the node's processes: a later one has a larger birth."""
    view: int
    """The newest view that the process had told its launcher of, -1 if none."""


@dataclass(frozen=True)
class Proposal:
    """What is agreed on: who is in the next view, and the application's value."""

    members: tuple[tuple[int, int], ...]
    """(node, birth), ascending: the same node's next process is another member."""
    value: bytes


@dataclass(frozen=True)
class Prepare:
    """Promise me to take part in no lower ballot, and report."""

    view: int
    """The view whose members decide on the next; so in all messages but Decided and Excluded."""
    ballot: int
    urgent: bool
    """Somebody is lost; else the change has time."""
    deaths: tuple[Death, ...]


@dataclass(frozen=True)
class Promise:
    """I take part in no lower ballot."""

    view: int
    ballot: int
    urgent: bool
    """The report was made knowing that the change is urgent."""
    accepted: tuple[int, Proposal] | None
    """The highest ballot in which I accepted a proposal, and that proposal."""
    report: bytes
    deaths: tuple[Death, ...]


@dataclass(frozen=True)
class Reject:
    """I refuse what came in a ballot: I have promised a higher one, or, if that is the same, I can't take its value."""

    view: int
    ballot: int
    promised: int


@dataclass(frozen=True)
class Accept:
    """Accept this proposal."""

    view: int
    ballot: int
    proposal: Proposal


@dataclass(frozen=True)
class Accepted:
    """I have accepted the ballot's proposal."""

    view: int
    ballot: int


@dataclass(frozen=True)
class Decided:
    """A view has begun."""

    view: int
    """Its number."""
    proposal: Proposal


@dataclass(frozen=True)
class Excluded:
    """A view has begun, and you are not in it."""

    view: int
    """Its number."""


@dataclass(frozen=True)
class Join:
    """A process outside all views asks to be in the next."""

    node: int
    birth: int
    left: int
    """The newest view that has begun without it though it was a member before, -1 if none has."""
    deaths: tuple[Death, ...]


@dataclass(frozen=True)
class Ask:
    """I want a change of this view; whoever has a newer one tells me."""

    view: int
    urgent: bool
    deaths: tuple[Death, ...]


ViewMessage = Prepare | Promise | Reject | Accept | Accepted | Ask
"""What members of a view say to each other."""
Message = ViewMessage | Decided | Excluded | Join
CLASSES: tuple[type[Any], ...] = (
    Prepare,
    Promise,
    Reject,
    Accept,
    Accepted,
    Decided,
    Excluded,
    Join,
    Ask,
)
"""A message's first byte is its place here."""


class Reader:
    """Takes bytes from the front; ValueError if there are too few."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > len(self.data) - self.place:
            raise ValueError("a message of the agreement ends too early")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, form: struct.Struct, least: int, most: int) -> int:
        """The next number, within limits."""
        value = int(form.unpack(self.take(form.size))[0]) + min(least, 0)
        if not least <= value <= most:
            raise ValueError(f"a message of the agreement has {value}, which is not from {least} to {most}")
        return value


def write_number(value: int, form: struct.Struct, least: int, most: int) -> bytes:
    """A number within limits; ValueError if it is not."""
    if not least <= value <= most:
        raise ValueError(f"{value} is not from {least} to {most}")
    return form.pack(value - min(least, 0))


@dataclass(frozen=True)
class Format:
    """How a field is written and read."""

    write: Callable[[Any], bytes]
    read: Callable[[Reader], Any]


def number(form: struct.Struct, least: int, most: int) -> Format:
    """Of a whole number."""
    return Format(lambda value: write_number(value, form, least, most), lambda reader: reader.number(form, least, most))


NODE, BIRTH = number(LENGTH, 0, MOST_NODES - 1), number(WHOLE, 0, MOST_BIRTH)
NUMBER, LAST_VIEW = number(WHOLE, 0, MOST_NUMBER), number(WHOLE, -1, MOST_NUMBER)
FLAG = Format(lambda value: bytes([value]), lambda reader: bool(reader.number(struct.Struct("<B"), 0, 1)))


def write_bytes(value: bytes) -> bytes:
    """Length and content; ValueError if it is too long."""
    return write_number(len(value), LENGTH, 0, MOST_BYTES) + value


def read_bytes(reader: Reader) -> bytes:
    """What write_bytes wrote."""
    return reader.take(reader.number(LENGTH, 0, MOST_BYTES))


def rows(*formats: Format) -> Format:
    """Of at most MOST_NODES rows of numbers, ascending by their first two."""

    def write(table: tuple[tuple[int, ...], ...]) -> bytes:
        parts = [form.write(value) for row in table for form, value in zip(formats, row, strict=True)]
        return write_number(len(table), LENGTH, 0, MOST_NODES) + b"".join(parts)

    def read(reader: Reader) -> tuple[tuple[int, ...], ...]:
        count = reader.number(LENGTH, 0, MOST_NODES)
        table = tuple(tuple(form.read(reader) for form in formats) for _ in range(count))
        if any(table[row][:2] >= table[row + 1][:2] for row in range(count - 1)):
            raise ValueError("a message of the agreement has rows that don't ascend")
        return table

    return Format(write, read)


MEMBERS, DEATHS = rows(NODE, BIRTH), rows(NODE, BIRTH, LAST_VIEW)


def write_proposal(proposal: Proposal) -> bytes:
    """Members, then the value."""
    return MEMBERS.write(proposal.members) + write_bytes(proposal.value)


def read_proposal(reader: Reader) -> Proposal:
    """What write_proposal wrote; ValueError if a node is in it twice."""
    members = MEMBERS.read(reader)
    if len({node for node, _ in members}) < len(members):
        raise ValueError("a message of the agreement names a node twice")
    return Proposal(members, read_bytes(reader))


def write_accepted(accepted: tuple[int, Proposal] | None) -> bytes:
    """Whether there is one, then its ballot and proposal."""
    if accepted is None:
        return FLAG.write(False)
    return FLAG.write(True) + NUMBER.write(accepted[0]) + write_proposal(accepted[1])


def read_accepted(reader: Reader) -> tuple[int, Proposal] | None:
    """What write_accepted wrote."""
    return (NUMBER.read(reader), read_proposal(reader)) if FLAG.read(reader) else None


FORMATS = {
    "view": NUMBER,
    "ballot": NUMBER,
    "promised": NUMBER,
    "node": NODE,
    "birth": BIRTH,
    "left": LAST_VIEW,
    "urgent": FLAG,
    "report": Format(write_bytes, read_bytes),
    "proposal": Format(write_proposal, read_proposal),
    "accepted": Format(write_accepted, read_accepted),
    "deaths": Format(
        lambda deaths: DEATHS.write(tuple((death.node, death.birth, death.view) for death in deaths)),
        lambda reader: tuple(Death(*row) for row in DEATHS.read(reader)),
    ),
}
"""By name of a field: the same name is the same thing in every message."""


def pack(message: Message) -> bytes:
    """A message's bytes; ValueError if something of it is too large."""
    kind = CLASSES.index(type(message))
    parts = [FORMATS[field.name].write(getattr(message, field.name)) for field in dataclasses.fields(message)]
    return bytes([kind]) + b"".join(parts)


def unpack(data: bytes) -> Message:
    """The message of these bytes; ValueError if they are none."""
    reader = Reader(bytes(data))
    kind = reader.take(1)[0]
    if kind >= len(CLASSES):
        raise ValueError(f"there is no message of the agreement of kind {kind}")
    fields = {field.name: FORMATS[field.name].read(reader) for field in dataclasses.fields(CLASSES[kind])}
    if reader.place < len(data):
        raise ValueError("a message of the agreement is followed by other bytes")
    message: Message = CLASSES[kind](**fields)
    return message
