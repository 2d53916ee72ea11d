"""Bringing a checkpoint to one machine, whose stages lie on several: each offers what it has, one fetches the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from skippipe.errors import UserError
from skippipe.model.parts import Part, folder_beside, parts_in
from skippipe.runtime.catalogue import Found
from skippipe.transport.addresses import Address, shown_address
from skippipe.transport.call import Call, Service, call, reason_of
from skippipe.transport.identity import AuthenticationError
from skippipe.transport.records import PART_BYTES

SERVICE = "skippipe checkpoints"
MOST_BYTES = 1 << 22
"""Of a question, or of a list of what is offered."""
WHAT_IS_THERE = b"what is there"
NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
"""Of a file in a checkpoint's folder: none that begins with a dot, nor in any folder but one right below."""


@dataclass(frozen=True)
class Stored:
    """What a machine has of a checkpoint."""

    iteration: int
    identity: str
    stages: int
    files: dict[str, int]
    """Sizes in bytes by name, relative to the checkpoint's folder."""


def offered(path: Path) -> list[Stored]:
    """What this machine has of the checkpoints of a run's folder, or up to a checkpoint's own, the newest first."""
    return [offer_of(part) for part in parts_in(path)]


def offer_of(part: Part) -> Stored:
    """What a part has, its stages and all that lies beside them."""
    names = {str(file.relative_to(part.folder)): file for file in part.folder.rglob("*") if file.is_file()}
    files = {name: file.stat().st_size for name, file in sorted(names.items()) if NAME.fullmatch(name)}
    return Stored(part.meta.iteration, part.meta.identity, part.meta.stages, files)


def read_offers(data: bytes) -> list[Stored]:
    """Offers as another machine has sent them; ValueError for anything else."""
    try:
        offers = []
        for entry in json.loads(data):
            files = {str(name): int(size) for name, size in entry["files"].items()}
            if not all(NAME.fullmatch(name) and size >= 0 for name, size in files.items()):
                raise ValueError("a file that no checkpoint has")
            offers.append(Stored(int(entry["iteration"]), str(entry["identity"]), int(entry["stages"]), files))
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no list of checkpoints ({error})") from None
    return offers


def merged(offers: Mapping[int, Sequence[Stored]]) -> list[Found]:
    """The checkpoints that machines, by a number each, have together, the newest first."""
    found: dict[tuple[int, str], Found] = {}
    for machine, own in offers.items():
        for offer in own:
            key = offer.iteration, offer.identity
            one = found.setdefault(key, Found(*key, offer.stages))
            for name, size in offer.files.items():
                one.holders.setdefault(name, {})[machine] = size
    return [found[key] for key in sorted(found, reverse=True)]


class Source:
    """A machine's end of it: answers what it has, and sends files of that."""

    def __init__(self, path: Path, on_file: Callable[[str, int], None]) -> None:
        """`on_file` is told the name and size of each file that was sent."""
        self.path = path
        self.on_file = on_file

    async def take(self, made: Call) -> None:
        """Answer one call to its end; ConnectionError for a question that makes no sense."""
        while question := await made.receive(MOST_BYTES):
            try:
                offers = offered(self.path)
            except UserError as error:
                raise ConnectionError(str(error)) from None
            if question == WHAT_IS_THERE:
                await made.send(*cut(json.dumps([asdict(offer) for offer in offers]).encode()))
                continue
            iteration, name = read_question(question)
            if not any(offer.iteration == iteration and name in offer.files for offer in offers):
                raise ConnectionError(f"{name!r} of iteration {iteration} is not offered")
            file = folder_beside(self.path, iteration) / name
            await made.send_parts(read_in_parts(file))
            self.on_file(str(file), file.stat().st_size)


def read_question(data: bytes) -> tuple[int, str]:
    """Iteration and name of the file that somebody asks for; ConnectionError for anything else."""
    try:
        iteration, name = json.loads(data)
        return int(iteration), str(name)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConnectionError(f"no question ({error})") from None


def cut(data: bytes) -> Iterator[bytes]:
    """Bytes in parts that a call takes."""
    return (data[begin : begin + PART_BYTES] for begin in range(0, len(data), PART_BYTES))


def read_in_parts(file: Path) -> Iterator[bytes]:
    """A file's bytes in such parts, each read when it is asked for."""
    with file.open("rb") as opened:
        while part := opened.read(PART_BYTES):
            yield part


async def with_call(address: Address, service: Service, talk: Callable[[Call], Awaitable[Any]]) -> Any:
    """Call a machine and talk to it; UserError says which one, and what went wrong."""
    shown = shown_address(address)
    try:
        made = await call(address, service)
    except (OSError, AuthenticationError) as error:
        question = "does skippipe checkpoints --serve run there, with this secret?"
        raise UserError(f"{shown}: {reason_of(error)}; {question}") from None
    try:
        answer = await talk(made)
        await made.send()
        return answer
    except UserError:
        raise
    except (OSError, ValueError, AuthenticationError) as error:
        raise UserError(f"{shown}: {reason_of(error)}") from None
    finally:
        made.close()


async def ask(address: Address, service: Service) -> list[Stored]:
    """What a machine has; UserError if it does not say."""

    async def talk(made: Call) -> list[Stored]:
        await made.send(WHAT_IS_THERE)
        return read_offers(await made.receive(MOST_BYTES))

    offers: list[Stored] = await with_call(address, service, talk)
    return offers


async def fetch(address: Address, service: Service, found: Found, name: str, size: int, path: Path) -> None:
    """Get a file of `size` bytes from a machine; UserError if it does not come or can't be written."""

    async def talk(made: Call) -> None:
        await made.send(json.dumps([found.iteration, name]).encode())
        came = 0
        try:
            file = path.open("wb")
        except OSError as error:
            raise UserError(f"{path}: can't be written ({error.strerror})") from None
        with file:
            async for part in made.receive_parts():
                came += len(part)
                write(file, part, path)
        if came != size:
            raise ConnectionError(f"{name}: {came} bytes came, {size} were offered")

    await with_call(address, service, talk)


def write(file: BinaryIO, part: bytes, path: Path) -> None:
    """Write a part of a file; UserError if the disk is full."""
    try:
        file.write(part)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror})") from None
