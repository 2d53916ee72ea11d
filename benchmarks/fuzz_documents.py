"""Mutate what travels inside messages, and what checkpoints say of themselves; fuzz.py feeds it to what reads it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from skippipe.config import CONFIGS, RunConfig
from skippipe.errors import UserError
from skippipe.model.checkpoint_meta import FORMAT, Meta, parse_meta
from skippipe.schedule import Schedule
from skippipe.survival.course import Course, Report
from skippipe.survival.ending import ending, is_ending, read_ending
from skippipe.survival.messages import Accept, Death, Decided, Join, Message, Prepare, Promise, Proposal, pack, unpack
from skippipe.survival.view import View
from skippipe.transport.all_reduce import AllReduce, Exact
from skippipe.transport.collective import Collective, Expected
from skippipe.transport.handover import blank
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import Header, MalformedMessageError, MessageKind, dtype_of
from skippipe.transport.sharing import Sharing, Tree

JUNK = (
    "null",
    "true",
    "-1",
    "0",
    str(1 << 70),
    "1e308",
    "Infinity",
    "NaN",
    '""',
    '"0"',
    r'"\ud800"',
    "[]",
    "{}",
    "[[],[]]",
)
"""As JSON, so that every use is a value of its own."""
Mutate = Callable[[bytearray, random.Random], bytes]


def leaves(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document of dictionaries and lists: its holder and its key."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(pairs):
        yield document, key
        if isinstance(value, dict | list):
            yield from leaves(value)


def spoil(text: str, generator: random.Random) -> str:
    """A JSON text with a few places changed: junk instead of a value, something missing, or one value for another."""
    document = json.loads(text)
    for _ in range(generator.randrange(1, 4)):
        places = list(leaves(document))
        holder, key = generator.choice(places)
        other, where = generator.choice(places)
        choice = generator.randrange(4)
        if choice == 0 and isinstance(holder, dict):
            del holder[key]
        elif choice == 1 and isinstance(holder, list):
            holder.insert(key, json.loads(generator.choice(JUNK)))
        elif choice == 2 and where in (other if isinstance(other, dict) else range(len(other))):
            holder[key] = json.loads(json.dumps(other[where]))
        else:
            holder[key] = json.loads(generator.choice(JUNK))
    return json.dumps(document)


def expect(refusal: type[Exception], read: Callable[..., Any], *arguments: Any) -> None:
    """Anything but a refusal ends the fuzzing with what did it."""
    try:
        read(*arguments)
    except refusal:
        return
    except Exception as error:
        raise AssertionError(f"{error!r} from {arguments!r}") from error


def read_value(value: bytes) -> None:
    """An end of the run, if it is one."""
    if is_ending(value):
        read_ending(value)


def shapes_of(text: str) -> None:
    """What a checkpoint's file says of its tensors."""
    parse_meta(text, Path("stage-2.safetensors"))[0].shapes(2)


def receive(machine: Collective, header: Header, tensor: torch.Tensor) -> None:
    """A message to a collective."""
    list(machine.receive(header, tensor))


class Documents:
    """What is mutated."""

    def __init__(self, mutate: Mutate, batch: int) -> None:
        self.mutate, self.batch = mutate, batch
        schedule = Schedule.load(CONFIGS / "schedules" / "original-20-nodes.json")
        self.nodes = schedule.nodes
        plan = schedule.plan("ca-partial")
        view = View(0, 0, "start", "the run begins", plan, -1)
        figures = {node: (1.0, math.nan, math.inf) for node in range(self.nodes)}
        lost = View(3, 5, "takeover", "lost: none", plan, 4, figures)
        joined = View(4, 9, "boundary", "moved: 3", plan, -1, donors={3: 2}, fallback=plan)
        self.views = [some.to_bytes().decode() for some in (view, lost, joined)]
        self.report = Course(view, 0).report(True, (1, 2)).to_bytes()
        self.ending = ending([1, 2], "stage 0 is lost")
        meta = Meta(7, 6, 2048, "ca-partial", "0" * 64, "1" * 26, RunConfig())
        self.meta = json.dumps({"format": FORMAT, "stage": 2, **asdict(meta)})
        proposal, deaths = Proposal(((0, 0), (1, 3)), self.views[0].encode()[:200]), (Death(2, 0, 5),)
        self.messages: list[Message] = [
            Prepare(1, 2, True, deaths),
            Promise(1, 2, False, (1, proposal), self.report[:200], deaths),
            Accept(1, 2, proposal),
            Decided(2, proposal),
            Join(3, 4, deaths),
        ]

    def agreement(self, generator: random.Random) -> None:
        """Messages of the agreement, and the values in them."""
        for _ in range(self.batch):
            expect(ValueError, unpack, self.mutate(bytearray(pack(generator.choice(self.messages))), generator))
            expect(ValueError, read_value, self.mutate(bytearray(self.ending), generator))

    def views_and_reports(self, generator: random.Random) -> None:
        """Views and reports; few, for each holds a plan."""
        for _ in range(self.batch // 100):
            text = spoil(generator.choice(self.views), generator).encode()
            data = text if generator.random() < 0.7 else self.mutate(bytearray(text), generator)
            expect(ValueError, View.from_bytes, data, self.nodes)
            first, _, view = self.report.partition(b"\n")
            expect(ValueError, Report.from_bytes, spoil(first.decode(), generator).encode() + b"\n" + view, self.nodes)

    def metadata(self, generator: random.Random) -> None:
        """What a checkpoint's file says of itself."""
        for _ in range(self.batch // 10):
            expect(UserError, shapes_of, spoil(self.meta, generator))

    def collectives(self, generator: random.Random) -> None:
        """Messages that a broken peer sends into collectives and into an inbox."""
        for _ in range(self.batch // 10):
            machines: list[Collective] = [
                AllReduce([0, 1, 2], 1, torch.zeros(10), 4, Exact(), 2),
                Sharing(Tree(range(12), 1), [1.0, 2.0]),
                blank(0, 1, 8, (2, 3)),
            ]
            senders = {(MessageKind.ACTIVATION, 0): 2}
            inbox = Inbox(senders, lambda sender: 0.0, collectives={1: dict(machines[0].expected)})
            for _ in range(10):
                machine = generator.choice(machines)
                header, tensor = any_message(generator, machine.expected)
                expect(MalformedMessageError, receive, machine, header, tensor)
                expect(MalformedMessageError, inbox.put, header, tensor)


def any_message(generator: random.Random, expected: Expected) -> tuple[Header, torch.Tensor]:
    """A message that the parser lets through; more often than not one that is expected, so that others follow."""
    kind, sender, part = generator.choice(list(MessageKind)), generator.randrange(12), generator.choice([0, 1, 2**31])
    shape = tuple(generator.randrange(4) for _ in range(generator.randrange(1, 4)))
    if expected and generator.random() < 0.7:
        kind, sender, part = generator.choice(list(expected))
        shape = expected[kind, sender, part]
    header = Header(
        kind,
        generator.choice([0, 0, 1, 2, 2**32 - 1]),
        generator.choice([0, 1, 2, 2**31]),
        sender,
        generator.choice([0.0, -1e300, 1e300, math.nan, math.inf]),
        part,
        generator.choice([0, 0, 1, 2**31]),
    )
    return header, torch.zeros(shape, dtype=dtype_of(kind))
