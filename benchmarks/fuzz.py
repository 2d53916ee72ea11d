"""Mutate messages and discovery datagrams and feed them to the parsers: `python benchmarks/fuzz.py --seconds 600`.

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

from skippipe.transport.discovery import Discovery, SealedDatagrams, quiet_deccom
from skippipe.transport.greeting import Greetings
from skippipe.transport.identity import node_id, public_name
from skippipe.transport.message import Encoding, Header, MalformedMessageError, MessageKind, pack, unpack
from skippipe.transport.run_identity import RunIdentity

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
        packed, payload = pack(header, torch.ones(shape), generator.choice(list(Encoding)))
        data = mutate(bytearray(packed) + bytearray(payload), generator)
        try:
            unpack(np.frombuffer(data, dtype=np.uint8).copy())
            valid += 1
        except MalformedMessageError:
            continue
        except Exception as error:
            raise AssertionError(f"{error!r} from {data!r}") from error
    return valid


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


async def fuzz(seconds: float) -> tuple[int, int]:
    """Fuzz both parsers in turns; how many inputs of each."""
    generator = random.Random(0)
    loop = asyncio.get_running_loop()
    quiet_deccom()
    datagrams = SilentDatagrams(Greetings(("127.0.0.1", 0), b"s" * 32, RunIdentity()), lambda address, names: None)
    discovery = Discovery([], [node_id(node) for node in range(NODES)])
    discovery.set_lower(datagrams)
    await loop.create_datagram_endpoint(lambda: datagrams, local_addr=("127.0.0.1", 0))
    await discovery.start(Peer(("127.0.0.1", 1), pub_key=public_name(0), tcp=1))
    counts = [0, 0]
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        fuzz_messages(generator)
        counts[0] += BATCH
        await fuzz_datagrams(discovery, generator)
        counts[1] += BATCH
    await discovery.stop()
    datagrams.transport.close()
    return counts[0], counts[1]


def main() -> None:
    """Fuzz for a while and write down how much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long to fuzz")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fuzz.md"), help="results file")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    before = whole_runs.resident_megabytes()
    messages, datagrams = asyncio.run(fuzz(arguments.seconds))
    after = whole_runs.resident_megabytes()
    lines = whole_runs.header("Fuzzing the parsers", f"python benchmarks/fuzz.py --seconds {arguments.seconds:.0f}")
    lines.append(f"{messages} mutated messages, {datagrams} mutated, correctly tagged discovery datagrams: no crash.")
    lines.append(f"Resident memory {before:.0f} MB before, {after:.0f} MB after.")
    print("\n".join(lines))
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
