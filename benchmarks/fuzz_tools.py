"""What fuzzers share: how bytes and documents are spoilt, and what a parser may say of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

MOST_BYTES = 4096
JUNK = (
    "null",
    "true",
    "-1",
    "0",
    str(1 << 70),
    str(10**400),
    "1e308",
    "Infinity",
    "NaN",
    '""',
    '"0"',
    r'"\ud800"',
    r'"a\u0000b"',
    "[]",
    "{}",
    "[[],[]]",
)
"""As JSON, so that every use is a value of its own."""


def mutate(data: bytes, generator: random.Random) -> bytes:
    """A few random changes: bytes replaced, cut, doubled, or extreme numbers written over them."""
    changed = bytearray(data)
    for _ in range(generator.randrange(1, 5)):
        place = generator.randrange(len(changed) + 1)
        choice = generator.randrange(5)
        if choice == 0 and place < len(changed):
            changed[place] = generator.randrange(256)
        elif choice == 1:
            del changed[place:]
        elif choice == 2:
            changed[place:place] = generator.randbytes(generator.randrange(9))
        elif choice == 3:
            changed[place : place + 8] = generator.choice([b"\xff" * 8, bytes(8), b"\x00" * 7 + b"\x80"])
        else:
            changed += changed[:place]
    return bytes(changed[:MOST_BYTES])


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


def expect(refusals: type[Exception] | tuple[type[Exception], ...], read: Callable[..., Any], *arguments: Any) -> bool:
    """Whether it was read; anything but a refusal ends the fuzzing with what did it."""
    try:
        read(*arguments)
    except refusals:
        return False
    except Exception as error:
        raise AssertionError(f"{error!r} from {arguments!r}") from error
    return True
