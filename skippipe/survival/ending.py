"""What the members agree on instead of a view if nobody can go on: that the run ends, and why; its bytes."""

from __future__ import annotations

import json
from collections.abc import Collection

END = b"!"
"""Begins it; no view does."""


def is_ending(value: bytes) -> bool:
    """Whether a proposed value is an end and no view."""
    return value.startswith(END)


def ending(members: Collection[int], reason: str) -> bytes:
    """An end for these members."""
    return END + json.dumps([sorted(members), reason]).encode()


def read_ending(value: bytes) -> tuple[tuple[int, ...], str]:
    """Members and reason of an end; ValueError if it is malformed."""
    try:
        document = json.loads(value[len(END) :])
    except RecursionError:
        raise ValueError("nested too deeply to be an end of the run") from None
    if not isinstance(document, list) or len(document) != 2 or not isinstance(document[0], list):
        raise ValueError("an end of the run is malformed")
    members, reason = document
    if not all(type(member) is int for member in members):
        raise ValueError("an end of the run names members that are no numbers")
    return tuple(members), str(reason)


def loss_told(lost: Collection[int], what: str) -> str:
    """A sentence on the loss of nodes, of which there may be none, and what follows from it."""
    if not lost:
        return what
    listed = ", ".join(map(str, sorted(lost)))
    return f"{f'node {listed} is' if len(lost) == 1 else f'nodes {listed} are'} lost, and {what}"
