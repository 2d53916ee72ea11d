"""What must be equal on all machines of a run, by field; they compare it when they meet (transport/run_identity.py)."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skippipe.config import RunConfig
from skippipe.data.tokenizer import tokenizer_files
from skippipe.schedule import Schedule

if TYPE_CHECKING:
    from skippipe.data.prepared import Prepared

PACKAGE = Path(__file__).resolve().parent.parent
OWN = {"schedule", "runs", "name", "device", "peers", "recompute", "compile", "threads", "checkpoints_kept"}
OWN |= {"model.init_from", "data.paths", "data.hub", "data.hub_revision", "data.cache", "data.tokenizer"}
"""Fields that may differ: what they lead to is compared instead, or concerns one machine."""


def equal_fields(
    schedule: Schedule,
    setting: str,
    config: RunConfig,
    prepared: Prepared,
    resumes: bool = False,
    python: str | None = None,
) -> dict[str, str]:
    """Fields of a training run, of its data too: another machine may join later.

    If it `resumes`, the machines agree on a checkpoint when they meet (resuming.py), and who joins later needs none.
    `python` is the version of the machine that has tokenised its library, if that was another one.
    """
    fields = common_fields(schedule, setting, config, python)
    fields["the iteration to begin with"] = "that of a checkpoint" if resumes else "0"
    fields["the tokenizer"] = digest(b"".join(file.read_bytes() for file in tokenizer_files(prepared.tokenizer)))
    fields["the text"] = prepared.digest()[:16]
    if config.model.init_from is not None:
        fields["the files of model.init_from"] = folder_digest(Path(config.model.init_from))
    return fields


def common_fields(schedule: Schedule, setting: str, config: RunConfig, python: str | None = None) -> dict[str, str]:
    """Those fields of a training run that are known before its data are prepared."""
    fields = {
        "the code": code_digest(),
        "the schedule": digest(schedule.to_json().encode()),
        "SETTING": setting,
        "SAMPLES": str(schedule.pipeline.samples_per_microbatch),
        **config_fields(dataclasses.asdict(config)),
    }
    if config.data.source == "stdlib":
        fields["Python, whose library is the text"] = python or platform.python_version()
    return fields


def profile_fields(asked: object, nodes: int) -> dict[str, str]:
    """Fields of a profile of so many nodes."""
    return {"the code": code_digest(), "what is profiled": repr(asked), "NODES": str(nodes)}


def config_fields(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Fields of a configuration by their names as the user writes them, without those that may differ."""
    fields: dict[str, str] = {}
    for name, value in values.items():
        full = prefix + name
        if full in OWN:
            continue
        if isinstance(value, dict):
            fields |= config_fields(value, f"{full}.")
        else:
            fields[full] = str(value)
    return fields


def digest(data: bytes) -> str:
    """Hash of some bytes, long enough to tell two of them apart."""
    return hashlib.sha256(data).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Hash of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """Hash of the names and contents of a folder's files; models tuned from one are alike in all but these."""
    files = sorted(path for path in folder.expanduser().iterdir() if path.is_file())
    return digest(repr([(path.name, file_digest(path)) for path in files]).encode())


def code_digest() -> str:
    """Hash of this package's sources."""
    sources = sorted(PACKAGE.rglob("*.py"))
    return digest(b"".join(bytes.fromhex(digest(path.read_bytes())) for path in sources))
