"""Mutate what comes over the network, at both ends of a connection and as datagrams; fuzz.py has it read."""

from __future__ import annotations

import asyncio
import math
import random
import socket

import numpy as np
import torch
from deccom.peers.peer import Peer
from fuzz_tools import expect, mutate

from skippipe.transport.addresses import Neighbourhood
from skippipe.transport.beat import ANSWER, Beat, unpack_answer, unpack_beat
from skippipe.transport.buffers import BufferPool
from skippipe.transport.clocks import ClockOffset
from skippipe.transport.connected import RefusedError
from skippipe.transport.discovery import Discovery, SealedDatagrams, adapt_deccom
from skippipe.transport.framing import START, STATE, FrameReceiver, Incoming, refusal, unpack_refusal, unpack_state
from skippipe.transport.greeting import GREETING, HEAD_BYTES, WELCOME, Greetings
from skippipe.transport.handshake import ANSWER as SERVERS_ANSWER
from skippipe.transport.handshake import OPENING, ClientHandshake, Introduction, ServerHandshake
from skippipe.transport.identity import AuthenticationError, keyed, node_id, public_name
from skippipe.transport.message import Encoding, Header, MalformedMessageError, MessageKind, dtype_of, pack, unpack
from skippipe.transport.records import Opener, RecordKind, Sealer, Session
from skippipe.transport.run_identity import RunIdentity
from skippipe.transport.streams import first_record
from skippipe.transport.work import Work

NODES = 20
SECRET = b"s" * 32
HERE = ("127.0.0.1", 4000)
REFUSALS = (MalformedMessageError, AuthenticationError)


class SilentDatagrams(SealedDatagrams):
    """Sends nothing: mutated peers have addresses that are nobody's business."""

    async def sendto(self, msg: bytes, addr: tuple[str, int]) -> None:
        """Drop the datagram."""


def handshakes() -> tuple[ClientHandshake, ServerHandshake]:
    """Both ends of a handshake."""
    run = RunIdentity({"seed": "0"})
    ours, theirs = (Introduction(node_id(node), bytes(16), run, bytes(16)) for node in range(2))
    return ClientHandshake(ours, node_id(1), SECRET), ServerHandshake(theirs, SECRET)


def take_answer(content: bytes) -> None:
    """What a peer answers to a heartbeat, and the offset that follows."""
    ClockOffset().sample(*unpack_answer(content), 1.0)


class Network:
    """What is mutated; each method is one batch, and says how many inputs it was."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.loop = asyncio.new_event_loop()
        self.datagram_layer, self.discovery = self.loop.run_until_complete(self.open())

    async def open(self) -> tuple[SilentDatagrams, Discovery]:
        """A node's discovery that sends nothing."""
        adapt_deccom()
        greetings = Greetings(("127.0.0.1", 0), SECRET, RunIdentity())
        datagrams = SilentDatagrams(greetings, Neighbourhood({}), lambda address, names: None)
        discovery = Discovery([], [node_id(node) for node in range(NODES)])
        discovery.set_lower(datagrams)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: datagrams, local_addr=("127.0.0.1", 0))
        await discovery.start(Peer(("127.0.0.1", 1), pub_key=public_name(0), tcp=1))
        return datagrams, discovery

    def close(self) -> None:
        """Close what is open."""
        self.loop.run_until_complete(self.discovery.stop())
        self.datagram_layer.transport.close()
        self.loop.close()

    def messages(self, generator: random.Random) -> int:
        """Messages."""
        for _ in range(self.batch):
            shape = [generator.randrange(1, 5) for _ in range(generator.randrange(1, 5))]
            header = Header(generator.choice(list(MessageKind)), 1, 2, 3, 4.0)
            encoding = generator.choice([Encoding.FP32, Encoding.BF16, Encoding.INT8])
            packed, payload = pack(header, torch.ones(shape, dtype=dtype_of(header.kind)), encoding)
            data = mutate(packed + bytes(payload), generator)
            expect(MalformedMessageError, unpack, np.frombuffer(data, dtype=np.uint8).copy())
        return self.batch

    def records(self, generator: random.Random) -> int:
        """Rows of contents, most of them sealed as a broken peer would seal them, some damaged afterwards."""
        key = generator.randbytes(32)
        beat, start = Beat(1.0, 0.5, 0.1, Work().pack()).pack(), START.pack(1, generator.choice([64, 2000]), 0)
        for _ in range(self.batch):
            receiver = FrameReceiver(Opener(key), Incoming(), 4096, BufferPool(), unpack, unpack_beat)
            sealer = Sealer(key)
            for _ in range(3):
                kind = generator.choice([RecordKind.FRAME, RecordKind.PART, RecordKind.BEAT, RecordKind.STATE])
                content = beat if kind is RecordKind.BEAT else start + bytes(64)
                record = sealer.seal(kind, mutate(content, generator) if generator.random() < 0.7 else content)
                if generator.random() < 0.2:
                    record = mutate(record, generator)
                receiver.stream.room()[: len(record)] = record
                if not expect(REFUSALS, receiver.stream.received, len(record)):
                    break
            receiver.stream.close()
        return self.batch

    def openings(self, generator: random.Random) -> int:
        """What a server hears: openings and proofs, under the right secret and under none."""
        for _ in range(self.batch):
            client, server = handshakes()
            data = mutate(client.opening()[: OPENING.size], generator)[: OPENING.size].ljust(OPENING.size, b"0")
            sealed = generator.random() < 0.7
            opening = data + (keyed(SECRET, b"opening", data) if sealed else generator.randbytes(32))
            if expect(AuthenticationError, server.answer, opening, 1.0):
                proof = server.transcript.speak(b"proof", generator.randbytes(16))
                server.transcript.said = server.transcript.said[: -len(proof)]
                expect(AuthenticationError, server.proved, proof)
        return self.batch

    def answers(self, generator: random.Random) -> int:
        """What a client hears in the handshake, under the right secret and under none."""
        for _ in range(self.batch):
            client, server = handshakes()
            good = server.answer(client.opening(), 1.0)[: SERVERS_ANSWER.size]
            data = mutate(good, generator)[: SERVERS_ANSWER.size].ljust(SERVERS_ANSWER.size, b"0")
            sealed = generator.random() < 0.7
            tag = keyed(SECRET, b"answer", client.transcript.said + data) if sealed else generator.randbytes(32)
            if expect(AuthenticationError, client.answered, data + tag):
                expect(AuthenticationError, client.prove, 0.5, 0.1)
        return self.batch

    def replies(self, generator: random.Random) -> int:
        """What a client hears later: states, refusals and answers to heartbeats."""
        for _ in range(self.batch):
            expect(MalformedMessageError, unpack_state, mutate(STATE.pack(3, 70), generator))
            expect(MalformedMessageError, unpack_refusal, mutate(refusal(3, "a reason"), generator))
            expect(MalformedMessageError, take_answer, mutate(ANSWER.pack(1.0, math.inf), generator))
        return 3 * self.batch

    def first_records(self, generator: random.Random) -> int:
        """What a client hears first of all, from a socket that is closed in the middle of it."""
        key = generator.randbytes(32)
        refused = (*REFUSALS, RefusedError, ConnectionError)
        for _ in range(self.batch // 10):
            kind = generator.choice([RecordKind.STATE, RecordKind.REFUSED, RecordKind.FRAME])
            content = STATE.pack(3, 70) if kind is RecordKind.STATE else refusal(3, "a reason")
            record = Sealer(key).seal(kind, mutate(content, generator) if generator.random() < 0.7 else content)
            if generator.random() < 0.5:
                record = mutate(record, generator)
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.setblocking(False)
                theirs.sendall(record)
                theirs.shutdown(socket.SHUT_WR)
                session = Session(Sealer(key), Opener(key))
                expect(refused, self.loop.run_until_complete, first_record(ours, session))
        return self.batch // 10

    def greetings(self, generator: random.Random) -> int:
        """Greetings, welcomes and contents."""
        run = RunIdentity({"seed": "0"})
        ours, theirs = Greetings(HERE, SECRET, run), Greetings(HERE, SECRET, run)
        for _ in range(self.batch):
            kind = generator.choice([GREETING, WELCOME])
            choices = [ours.introduction(kind, theirs.session), ours.sealed(b"content", theirs.session)]
            data = mutate(generator.choice(choices), generator)
            if generator.random() < 0.5:
                head, message = kind + data[1:HEAD_BYTES], data[HEAD_BYTES:-16]
                data = head + message + keyed(SECRET, b"greeting", head, message)[:16]
            expect((), theirs.receive, data, 1.0)
        return self.batch

    def datagrams(self, generator: random.Random) -> int:
        """Datagrams of discovery, as a broken peer would send them."""
        me = bytes(Peer(HERE, pub_key=public_name(1), tcp=4000))

        async def feed() -> None:
            for _ in range(self.batch):
                kind = generator.choice([b"\xe1", b"\xc4", b"\xf6", b"\xf7", b"\xf3", generator.randbytes(1)])
                data = mutate(kind + generator.randbytes(8) + me + node_id(generator.randrange(NODES)), generator)
                expect((), self.discovery.process_datagram, HERE, data)
            await asyncio.sleep(0)

        self.loop.run_until_complete(feed())
        return self.batch
