"""Mutate what comes from the network and feed it to the parsers: `python benchmarks/fuzz.py --seconds 600`.

Whatever comes, a parser may only say that it is malformed; anything else ends the fuzzing with the bytes that did it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import time
from pathlib import Path

import numpy as np
import torch
import whole_runs
from deccom.peers.peer import Peer
from fuzz_documents import Documents

from skippipe.transport.addresses import Neighbourhood
from skippipe.transport.beat import Beat, unpack_beat
from skippipe.transport.buffers import BufferPool
from skippipe.transport.discovery import Discovery, SealedDatagrams, adapt_deccom
from skippipe.transport.framing import START, FrameReceiver, Incoming
from skippipe.transport.greeting import GREETING, HEAD_BYTES, WELCOME, Greetings
from skippipe.transport.handshake import OPENING, ClientHandshake, Introduction, ServerHandshake
from skippipe.transport.identity import AuthenticationError, keyed, node_id, public_name
from skippipe.transport.message import Encoding, Header, MalformedMessageError, MessageKind, dtype_of, pack, unpack
from skippipe.transport.records import Opener, RecordKind, Sealer
from skippipe.transport.run_identity import RunIdentity
from skippipe.transport.work import Work

BATCH = 1000
NODES = 20


def mutate(data: bytearray, generator: random.Random) -> bytes:
    """A few random changes: bytes replaced, cut, doubled, or extreme numbers written over them."""
    for _ in range(generator.randrange(1, 5)):
        place = generator.randrange(len(data) + 1)
        choice = generator.randrange(5)
        if choice == 0 and place < len(data):
            data[place] = generator.randrange(256)
        elif choice == 1:
            del data[place:]
        elif choice == 2:
            data[place:place] = generator.randbytes(generator.randrange(9))
        elif choice == 3:
            data[place : place + 8] = generator.choice([b"\xff" * 8, bytes(8), b"\x00" * 7 + b"\x80"])
        else:
            data += data[:place]
    return bytes(data[:4096])


class SilentDatagrams(SealedDatagrams):
    """Sends nothing: mutated peers have addresses that are nobody's business."""

    async def sendto(self, msg: bytes, addr: tuple[str, int]) -> None:
        """Drop the datagram."""


def fuzz_messages(generator: random.Random) -> int:
    """A batch of mutated messages; how many were still valid."""
    valid = 0
    for _ in range(BATCH):
        shape = [generator.randrange(1, 5) for _ in range(generator.randrange(1, 5))]
        header = Header(generator.choice(list(MessageKind)), 1, 2, 3, 4.0)
        encoding = generator.choice([Encoding.FP32, Encoding.BF16, Encoding.INT8])
        packed, payload = pack(header, torch.ones(shape, dtype=dtype_of(header.kind)), encoding)
        data = mutate(bytearray(packed) + bytearray(payload), generator)
        try:
            unpack(np.frombuffer(data, dtype=np.uint8).copy())
            valid += 1
        except MalformedMessageError:
            continue
        except Exception as error:
            raise AssertionError(f"{error!r} from {data!r}") from error
    return valid


def fuzz_records(generator: random.Random) -> None:
    """A batch of mutated contents, most of them sealed as a broken peer would seal them, some damaged afterwards."""
    key = generator.randbytes(32)
    for _ in range(BATCH):
        receiver = FrameReceiver(Opener(key), Incoming(), 4096, BufferPool(), unpack, unpack_beat)
        sealer = Sealer(key)
        beat = Beat(1.0, 0.5, 0.1, Work().pack()).pack()
        for _ in range(3):
            kind = generator.choice([RecordKind.FRAME, RecordKind.PART, RecordKind.BEAT, RecordKind.STATE])
            content = beat if kind is RecordKind.BEAT else START.pack(1, generator.choice([64, 2000]), 0) + bytes(64)
            record = sealer.seal(kind, mutate(bytearray(content), generator) if generator.random() < 0.7 else content)
            if generator.random() < 0.2:
                record = mutate(bytearray(record), generator)
            try:
                room = receiver.stream.room()
                room[: len(record)] = record
                receiver.stream.received(len(record))
            except (MalformedMessageError, AuthenticationError):
                break
            except Exception as error:
                raise AssertionError(f"{error!r} from {record!r}") from error


def fuzz_handshakes(generator: random.Random) -> None:
    """Mutated openings, under the right secret and under none."""
    run = RunIdentity({"seed": "0"})
    secret = b"s" * 32
    for _ in range(BATCH // 10):
        client = ClientHandshake(Introduction(node_id(0), bytes(16), run, bytes(16)), node_id(1), secret)
        data = mutate(bytearray(client.opening()[: OPENING.size]), generator)[: OPENING.size].ljust(OPENING.size, b"0")
        sealed = generator.random() < 0.7
        opening = data + (keyed(secret, b"opening", data) if sealed else generator.randbytes(32))
        server = ServerHandshake(Introduction(node_id(1), bytes(16), run, bytes(16)), secret)
        try:
            server.answer(opening, 1.0)
            server.proved(server.transcript.speak(b"proof", generator.randbytes(16)))
        except AuthenticationError:
            continue
        except Exception as error:
            raise AssertionError(f"{error!r} from {opening!r}") from error


def fuzz_greetings(generator: random.Random) -> None:
    """Mutated greetings, welcomes and contents."""
    me, run = ("127.0.0.1", 4000), RunIdentity({"seed": "0"})
    ours, theirs = Greetings(me, b"s" * 32, run), Greetings(me, b"s" * 32, run)
    for _ in range(BATCH):
        kind = generator.choice([GREETING, WELCOME])
        choices = [ours.introduction(kind, theirs.session), ours.sealed(b"content", theirs.session)]
        data = mutate(bytearray(generator.choice(choices)), generator)
        if generator.random() < 0.5:
            head, message = kind + data[1:HEAD_BYTES], data[HEAD_BYTES:-16]
            data = head + message + keyed(b"s" * 32, b"greeting", head, message)[:16]
        try:
            theirs.receive(data, 1.0)
        except Exception as error:
            raise AssertionError(f"{error!r} from {data!r}") from error


async def fuzz_datagrams(discovery: Discovery, generator: random.Random) -> None:
    """A batch of mutated datagrams that carry a valid tag, as a broken peer would send them."""
    me = bytes(Peer(("127.0.0.1", 4000), pub_key=public_name(1), tcp=4000))
    for _ in range(BATCH):
        kind = generator.choice([b"\xe1", b"\xc4", b"\xf6", b"\xf7", b"\xf3", generator.randbytes(1)])
        data = mutate(bytearray(kind + generator.randbytes(8) + me + node_id(generator.randrange(NODES))), generator)
        try:
            discovery.process_datagram(("127.0.0.1", 4000), data)
        except Exception as error:
            raise AssertionError(f"{error!r} from {data!r}") from error
    await asyncio.sleep(0)


async def fuzz(seconds: float) -> int:
    """Fuzz all parsers in turns; in how many turns."""
    generator = random.Random(0)
    loop = asyncio.get_running_loop()
    adapt_deccom()
    datagrams = SilentDatagrams(
        Greetings(("127.0.0.1", 0), b"s" * 32, RunIdentity()), Neighbourhood({}), lambda address, names: None
    )
    discovery = Discovery([], [node_id(node) for node in range(NODES)])
    discovery.set_lower(datagrams)
    await loop.create_datagram_endpoint(lambda: datagrams, local_addr=("127.0.0.1", 0))
    await discovery.start(Peer(("127.0.0.1", 1), pub_key=public_name(0), tcp=1))
    turns = 0
    documents = Documents(mutate, BATCH)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        fuzz_messages(generator)
        fuzz_records(generator)
        fuzz_handshakes(generator)
        fuzz_greetings(generator)
        documents.agreement(generator)
        documents.views_and_reports(generator)
        documents.metadata(generator)
        documents.collectives(generator)
        await fuzz_datagrams(discovery, generator)
        turns += 1
    await discovery.stop()
    datagrams.transport.close()
    return turns


def main() -> None:
    """Fuzz for a while and write down how much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long to fuzz")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fuzz.md"), help="results file")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    before = whole_runs.resident_megabytes()
    turns = asyncio.run(fuzz(arguments.seconds))
    after = whole_runs.resident_megabytes()
    lines = whole_runs.header("Fuzzing the parsers", f"python benchmarks/fuzz.py --seconds {arguments.seconds:.0f}")
    lines.append(
        f"{turns * BATCH} mutated inputs each of messages, rows of records, greetings, messages of the agreement, and"
        f" correctly tagged discovery datagrams; {turns * BATCH // 10} each of handshakes, checkpoints' metadata, and"
        f" of rows of ten messages to collectives and inboxes; {turns * BATCH // 100} each of views and of reports: no"
        " crash."
    )
    lines.append(f"Resident memory {before:.0f} MB before, {after:.0f} MB after.")
    print("\n".join(lines))
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
