"""Typed dataclasses from YAML and key=value arguments; a mistake is one line that names file, field and remedy."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import difflib
import inspect
import itertools
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from skippipe.errors import UserError, shown

T = TypeVar("T")
MOST_YAML_CHARACTERS = 4_000_000
MOST_WHOLE_NUMBER = 10**12
MOST_NAME = 60
FastSafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's safe loader in C if it was built; the one in Python takes seconds for deep nesting."""


def require_positive(config: Any, *names: str) -> None:
    """Raise UserError naming the first of the fields that is not a positive, finite number."""
    for name in names:
        value = getattr(config, name)
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} must be positive, not {value}")


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field of a configuration class, for --help."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for field_node, text in itertools.pairwise(definition.body):
        if (
            isinstance(field_node, ast.AnnAssign)
            and isinstance(field_node.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            docs[field_node.target.id] = " ".join(str(text.value.value).split())
    return docs


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping from a file; UserError names the file and what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
        # Not UnicodeDecodeError alone: a whole number of thousands of digits is a ValueError too.
        document = yaml.load(text, FastSafeLoader) if len(text) <= MOST_YAML_CHARACTERS else None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]})") from None
    if len(text) > MOST_YAML_CHARACTERS:
        raise UserError(f"{path}: is longer than {MOST_YAML_CHARACTERS} characters, too long to be a configuration")
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UserError(f"{path}: must hold fields (name: value), not a {type(document).__name__}")
    return document


def load_config(
    cls: type[T], path: Path | None, overrides: typing.Iterable[str] = (), base: dict[str, Any] | None = None
) -> T:
    """Build a configuration dataclass from a YAML file (or nothing but defaults) and `a.b=value` overrides.

    What neither of them gives is as in `base`, fields as in a file. Raises UserError that names the file or argument,
    the field and the remedy.
    """
    document = laid_over(base or {}, read_yaml(path) if path else {})
    given: dict[str, str] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UserError(f"argument {shown(override)}: overrides are written key=value, such as iterations=20")
        try:
            value = yaml.load(text, FastSafeLoader) if text else None
        except (yaml.YAMLError, ValueError, RecursionError):
            # Not YAML, or a date that is none, or a number of thousands of digits: the field's type decides about it.
            value = text
        set_path(document, key.split("."), value, override)
        given[key] = f"argument {shown(override)}"
    return build(cls, document, str(path) if path else "arguments", given=given)


def is_writable(text: str) -> bool:
    """Whether a text can be a path and be written to a file: without NUL, and without half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def user_path(text: str, field: str) -> Path:
    """A path as a user writes it, with ~ for a home; UserError names the field if nobody has that home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{field}: {shown(text)}: there is no such home; give a path without ~") from None


def laid_over(base: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A document's fields, and those of another one that it does not have."""
    over = {
        name: laid_over(base[name], value) if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in document.items()
    }
    return {**base, **over}


def set_path(document: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    """Put a value into nested mappings, making those that are missing."""
    for key in keys[:-1]:
        child = document.setdefault(key, {})
        if not isinstance(child, dict):
            raise UserError(f"argument {shown(override)}: {key} is a value, not a section")
        document = child
    document[keys[-1]] = value


def build(
    cls: type[T],
    document: dict[str, Any],
    where: str,
    prefix: str = "",
    given: typing.Mapping[str, str] = types.MappingProxyType({}),
) -> T:
    """Build a dataclass from a mapping: unknown names, wrong types and failed checks raise UserError.

    It says where the field stands: in `where`, or for one of the `given` what they say.
    """
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    known = [entry.name for entry in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in known:
            near = difflib.get_close_matches(str(name)[:MOST_NAME], known, 1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known fields: {', '.join(known)}"
            places = [place for key, place in given.items() if f"{key}.".startswith(f"{prefix}{name}.")]
            raise UserError(f"{(places or [where])[0]}: no field {prefix}{str(name)[:MOST_NAME]}; {hint}")
        hint_type = hints[name]
        if dataclasses.is_dataclass(hint_type):
            if not isinstance(value, dict):
                raise UserError(f"{where}: {prefix}{name} must be a section of fields, not {shown(value)}")
            values[name] = build(typing.cast(type, hint_type), value, where, f"{prefix}{name}.", given)
        else:
            values[name] = convert(value, hint_type, f"{given.get(prefix + name, where)}: {prefix}{name}")
    try:
        return cls(**values)
    except UserError as error:
        message = str(error)
        # Checks name the field first.
        place = given.get(prefix + message.partition(" ")[0], where)
        raise UserError(message if message.startswith(where) else f"{place}: {prefix}{message}") from None


def convert(value: Any, hint: Any, where: str) -> Any:
    """Check a YAML value against a type hint; whole numbers serve as floats and 1e-4 written as text too."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value in typing.get_args(hint):
            return value
        raise UserError(f"{where} must be one of {', '.join(map(str, typing.get_args(hint)))}, not {shown(value)}")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(hint):
            return None
        return convert(value, next(arg for arg in typing.get_args(hint) if arg is not type(None)), where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise UserError(f"{where} must be a list, not {shown(value)}")
        return tuple(convert(item, typing.get_args(hint)[0], f"{where}[{i}]") for i, item in enumerate(value))
    if hint is float and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{where} must be a number, not {shown(value)}") from None
        if not math.isfinite(number):
            raise UserError(f"{where} must be finite, not {shown(value)}")
        return number
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MOST_WHOLE_NUMBER:
            raise UserError(f"{where} must be at most {MOST_WHOLE_NUMBER}, not {shown(value)}")
        return value
    if hint is str and isinstance(value, datetime.date):
        return value.isoformat()  # YAML takes what looks like a date for one
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        if not is_writable(value):
            raise UserError(f"{where} has characters that no file's name or text can have: {shown(value)}")
        return value
    names = {int: "a whole number", bool: "true or false", str: "text", float: "a number"}
    raise UserError(f"{where} must be {names.get(hint, hint)}, not {shown(value)}")
