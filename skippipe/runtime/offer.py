"""What an invitation brings: a document and files, so that a machine that has nothing but the code runs the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skippipe.config import RunConfig, is_folder_name
from skippipe.data.tokenizer import tokenizer_files
from skippipe.errors import UserError, shown
from skippipe.fields import build
from skippipe.runtime.equal import code_digest
from skippipe.transport.invitation import MOST_DOCUMENT_BYTES, Desk
from skippipe.transport.run_identity import differs

if TYPE_CHECKING:
    from skippipe.data.prepared import Prepared

MOST_FILE_BYTES = 1 << 26
"""A longer token file stays: at 100 Mbit/s this one takes 5 s, and whoever has more text has it on a disk or a hub from
which each machine reads it. The default text, the standard library, has 22 MiB of tokens."""
SCHEDULE, TOKENIZER, TOKENIZER_CONFIG, TOKENS = "schedule", "tokenizer", "tokenizer_config", "tokens"
AT_HOME = {"runs", "name", "device", "compile", "threads", "schedule", "data.cache", "data.tokenizer"}
AT_HOME |= {f"peers.{name}" for name in ("host", "advertise", "first_port", "bootstrap", "secret_file")}
"""Fields that concern one machine alone, so that they do not travel."""


@dataclass(frozen=True)
class Note:
    """Of a file that travels."""

    bytes: int = 0
    """0: it does not."""
    sha256: str = ""
    """Of its contents."""

    def __post_init__(self) -> None:
        if not 0 <= self.bytes <= MOST_FILE_BYTES:
            raise UserError(f"bytes must lie between 0 and {MOST_FILE_BYTES}, not {self.bytes}")
        if self.bytes and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise UserError(f"sha256 must have 64 hexadecimal digits, not {shown(self.sha256)}")

    @classmethod
    def of(cls, path: Path) -> Note:
        """Of a file as it is now."""
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class Offer:
    """What the run is, beside its configuration and its files."""

    code: str = ""
    """Hash of the sources that run it."""
    setting: str = ""
    samples: int = 0
    """In a microbatch."""
    name: str = "invited"
    """Of the run's folder at the inviting machine."""
    python: str = ""
    """The version whose library is the text, if it is."""
    schedule: Note = field(default_factory=Note)
    tokenizer: Note = field(default_factory=Note)
    tokenizer_config: Note = field(default_factory=Note)
    """If the tokenizer is one of transformers', which has two files."""
    tokens: Note = field(default_factory=Note)
    """If they are few enough to travel, and no stream."""

    def __post_init__(self) -> None:
        if not is_folder_name(self.name):
            raise UserError(f"name must be a folder's name, not {shown(self.name)}")
        if not self.schedule.bytes or not self.tokenizer.bytes:
            raise UserError("schedule and tokenizer must come with it")

    @property
    def files(self) -> dict[str, Note]:
        """Those that travel, by name."""
        notes = {SCHEDULE: self.schedule, TOKENIZER: self.tokenizer, TOKENIZER_CONFIG: self.tokenizer_config}
        notes[TOKENS] = self.tokens
        return {name: note for name, note in notes.items() if note.bytes}


def make_desk(
    config: RunConfig,
    setting: str,
    samples: int,
    name: str,
    prepared: Prepared,
    schedule: Path,
    local: range,
    nodes: int,
    python: str | None = None,
) -> Desk:
    """What nodes of this machine tell others that are invited; UserError if it is too much.

    `name` is the run folder's, `schedule` the file, `samples` are SAMPLES; `python` is of the machine whose library is
    the text, by default this one.
    """
    from skippipe.data.prepared import TokenFile

    files = {SCHEDULE: schedule}
    files |= zip((TOKENIZER, TOKENIZER_CONFIG), tokenizer_files(prepared.tokenizer), strict=False)
    if isinstance(prepared, TokenFile) and prepared.tokens.stat().st_size <= MOST_FILE_BYTES:
        files[TOKENS] = prepared.tokens
    for path in files.values():
        if path.stat().st_size > MOST_FILE_BYTES:
            raise UserError(f"--host: {path} has more than {MOST_FILE_BYTES} bytes, too much for an invitation")
    notes = {name: Note.of(path) for name, path in files.items()}
    offer = Offer(code_digest(), setting, samples, name, python or platform.python_version(), **notes)
    document = write_document(config, offer)
    if len(document) > MOST_DOCUMENT_BYTES:
        raise UserError(f"--host: the configuration has {len(document)} bytes, too many for an invitation")
    return Desk(document, files, nodes, local)


def write_document(config: RunConfig, offer: Offer) -> bytes:
    """What read_document reads."""
    fields = travelling(dataclasses.asdict(config))
    return json.dumps({**dataclasses.asdict(offer), "config": fields}).encode()


def travelling(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of a configuration, without those that concern one machine."""
    return {
        name: travelling(value, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in values.items()
        if prefix + name not in AT_HOME
    }


def read_document(data: bytes, where: str) -> tuple[Offer, dict[str, Any]]:
    """An offer, and the configuration's fields as a file would have them, still to be checked.

    UserError, which names the other machine (`where`), if that runs other code or sends what makes no sense.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--join: {where} sends no offer ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(document, dict) or not isinstance(fields := document.pop("config", None), dict):
        raise UserError(f"--join: {where} sends no offer with a configuration")
    # First: whatever else is different follows from that.
    if document.get("code") != (ours := code_digest()):
        raise UserError(f"--join: {differs(where, [f'the code ({ours} here)'])}; get the same version on both machines")
    offer = build(Offer, document, f"--join: {where}")
    if stay := sorted(name for name in AT_HOME if holds(fields, name)):
        raise UserError(f"--join: {where} sends {stay[0]}, which each machine has for itself")
    return offer, fields


def holds(fields: Any, name: str) -> bool:
    """Whether nested mappings have a field, named as in arguments."""
    for key in name.split("."):
        if not isinstance(fields, dict) or key not in fields:
            return False
        fields = fields[key]
    return True
