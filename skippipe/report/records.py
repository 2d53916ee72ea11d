"""Dataclasses of numbers and text as JSON objects, and back with the type of every field checked."""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import json
import os
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from skippipe.errors import UserError, shown

T = TypeVar("T")


def to_object(record: Any) -> dict[str, Any]:
    """The fields of a dataclass in their order; those that are None are left out."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: value for name, value in values.items() if value is not None}


def from_object(cls: type[T], document: object) -> T:
    """The dataclass that to_object took apart; ValueError names a field that is missing, unknown or of another type."""
    if not isinstance(document, dict):
        raise ValueError(f"{shown(document)} is no JSON object")
    assert dataclasses.is_dataclass(cls)
    hints = field_types(cls)
    required = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    if wrong := sorted((required - document.keys()) | (document.keys() - hints.keys())):
        raise ValueError(f"the field {wrong[0]!r} is {'missing' if wrong[0] in required else 'unknown'}")
    return cls(**{name: checked(value, hints[name], name) for name, value in document.items()})


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Types of a dataclass's fields."""
    return typing.get_type_hints(cls)


def checked(value: object, hint: Any, name: str) -> object:
    """A value from JSON as the field's type: int, float (also nan and infinities), str, tuple[T, ...] or T | None."""
    if typing.get_origin(hint) is types.UnionType:
        (hint,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list):
            return tuple(checked(item, typing.get_args(hint)[0], name) for item in value)
    elif isinstance(value, (int, float) if hint is float else hint) and not isinstance(value, bool):
        try:
            return hint(value)
        except OverflowError:
            pass
    raise ValueError(f"{name} can't be {shown(value)}")


def append_missing(path: Path, missing: Callable[[bytes], Iterable[str]], looked_back: int) -> None:
    """Add the lines that are not in a file: launchers that share a folder all write what they all know.

    `missing` finds them; it is given the last `looked_back` bytes of the file.
    """
    with path.open("ab+") as file:
        # Closing the file gives the lock back.
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.seek(max(0, file.seek(0, os.SEEK_END) - looked_back))
        file.write(b"".join(line.encode() + b"\n" for line in missing(file.read())))


def read_json(path: Path) -> Any:
    """What a JSON file of a run's folder holds; UserError if it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read ({error}); give the folder of a run that has ended") from None
