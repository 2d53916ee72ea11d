"""Mutate what travels inside messages, and what checkpoints say of themselves; fuzz.py feeds it to what reads it."""

from __future__ import annotations

import json
import math
import random
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from fuzz_tools import expect, mutate, spoil
from safetensors.torch import save

from skippipe.config import CONFIGS, RunConfig
from skippipe.errors import UserError
from skippipe.model.checkpoint_meta import FORMAT, Meta, parse_meta
from skippipe.model.feedback import LEFT_OUT, Replica, read_feedback
from skippipe.runtime.figures import COUNT
from skippipe.runtime.gathering import Stored, read_offers, read_question
from skippipe.runtime.state import Knowledge
from skippipe.schedule import Schedule
from skippipe.survival.course import Course, Report
from skippipe.survival.ending import ending, is_ending, read_ending
from skippipe.survival.messages import Accept, Death, Decided, Join, Message, Prepare, Promise, Proposal, pack, unpack
from skippipe.survival.view import View
from skippipe.transport.addresses import ADDRESS_NUMBERS, address_numbers, address_of_numbers
from skippipe.transport.all_reduce import AllReduce, Exact
from skippipe.transport.collective import Collective, Expected
from skippipe.transport.handover import blank
from skippipe.transport.inbox import Inbox
from skippipe.transport.message import Header, MalformedMessageError, MessageKind, dtype_of
from skippipe.transport.probe import Word
from skippipe.transport.sharing import Sharing, Tree


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


def some_figure(generator: random.Random, figure: float) -> float:
    """A figure as it is, or another one."""
    others = (figure, math.nan, math.inf, -math.inf, -1.0, 0.5, 2.0**40, 2.0**52, 1e300)
    return figure if generator.random() < 0.6 else generator.choice(others)


class Documents:
    """What is mutated; each method but `close` is one batch, and says how many inputs it was."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.folder = tempfile.TemporaryDirectory()
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
        self.meta = Meta(7, 6, 2048, "ca-partial", "0" * 64, "1" * 26, RunConfig())
        self.replica = Replica(2, 4, (3, 4))
        described = {"format": FORMAT, **asdict(self.meta)}
        self.stage_meta = json.dumps({**described, "stage": 2})
        self.feedback_meta = json.dumps({**described, **self.replica.document})
        self.known = Knowledge("1" * 26, 7.0, 0, 6, 0.0, [], {node: [1.0] * COUNT for node in range(3)})
        address = ("10.0.0.1", 4003)
        word = Word({3: address}, {"torch": "2"}, (address,), (), True, 7.5).to_bytes().decode()
        offers = json.dumps([asdict(Stored(7, "0" * 26, 6, {"stage-2.safetensors": 100}))])
        question = json.dumps([7, "stage-2.safetensors"])
        self.said = [
            (word, ValueError, Word.from_bytes),
            (offers, ValueError, read_offers),
            (question, ConnectionError, read_question),
        ]
        proposal, deaths = Proposal(((0, 0), (1, 3)), self.views[0].encode()[:200]), (Death(2, 0, 5),)
        self.messages: list[Message] = [
            Prepare(1, 2, True, deaths),
            Promise(1, 2, False, (1, proposal), self.report[:200], deaths),
            Accept(1, 2, proposal),
            Decided(2, proposal),
            Join(3, 4, -1, deaths),
        ]

    def close(self) -> None:
        """Leave no file."""
        self.folder.cleanup()

    def agreement(self, generator: random.Random) -> int:
        """Messages of the agreement, and the values in them."""
        for _ in range(self.batch):
            expect(ValueError, unpack, mutate(pack(generator.choice(self.messages)), generator))
            expect(ValueError, read_value, mutate(self.ending, generator))
        return 2 * self.batch

    def views_and_reports(self, generator: random.Random) -> int:
        """Views and reports; few, for each holds a plan."""
        for _ in range(self.batch // 100):
            text = spoil(generator.choice(self.views), generator).encode()
            data = text if generator.random() < 0.7 else mutate(text, generator)
            expect(ValueError, View.from_bytes, data, self.nodes)
            first, _, view = self.report.partition(b"\n")
            expect(ValueError, Report.from_bytes, spoil(first.decode(), generator).encode() + b"\n" + view, self.nodes)
        return 2 * (self.batch // 100)

    def calls(self, generator: random.Random) -> int:
        """What a doctor is told, and what machines that gather a checkpoint tell each other."""
        for _ in range(self.batch // 10):
            for text, refusal, read in self.said:
                data = spoil(text, generator).encode()
                expect(refusal, read, data if generator.random() < 0.7 else mutate(data, generator))
        return len(self.said) * (self.batch // 10)

    def metadata(self, generator: random.Random) -> int:
        """What a checkpoint's file says of itself."""
        for _ in range(self.batch // 10):
            expect(UserError, shapes_of, spoil(self.stage_meta, generator))
        return self.batch // 10

    def feedback(self, generator: random.Random) -> int:
        """Files of what compressed syncs left out: what they say of themselves, and damaged anywhere."""
        file = Path(self.folder.name) / "feedback-4.safetensors"
        for _ in range(self.batch // 10):
            name = LEFT_OUT if generator.random() < 0.9 else "another"
            tensor = torch.zeros(generator.choice([8, 8, 8, 7]), dtype=generator.choice([torch.float32, torch.int64]))
            data = save({name: tensor}, {"skippipe": spoil(self.feedback_meta, generator)})
            file.write_bytes(data if generator.random() < 0.7 else mutate(data, generator))
            expect(UserError, read_feedback, file, self.meta, RunConfig(), self.replica, (8,))
        return self.batch // 10

    def shared_figures(self, generator: random.Random) -> int:
        """Figures that peers share as addresses, and as what a replica knows of the run."""
        members = [0, 1, 2]
        for _ in range(self.batch):
            numbers = address_numbers(("fd00::1", 4000), 4001)
            numbers = [some_figure(generator, number) for number in numbers][: generator.randint(1, ADDRESS_NUMBERS)]
            expect(MalformedMessageError, address_of_numbers, numbers)
            rows = self.known.to_tensor(members)
            rows[0] = torch.tensor([some_figure(generator, figure) for figure in rows[0].tolist()])
            expect(MalformedMessageError, Knowledge.from_tensor, rows, members)
        return 2 * self.batch

    def collectives(self, generator: random.Random) -> int:
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
        return self.batch


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
