"""Outcomes of a benchmark, kept one by one as they come: one that is cut short goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skippipe
from skippipe.errors import UserError

FAILED = "failed"
"""The only key of an outcome that is none: why."""
FAILURES = (RuntimeError, LookupError, UserError, subprocess.TimeoutExpired)


def digest_of(folder: Path) -> str:
    """A short digest of the Python sources below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:10]


def build() -> str:
    """The digest of skippipe: outcomes of another build don't belong to this one's."""
    return digest_of(Path(skippipe.__file__).parent)


class Kept:
    """Outcomes of the same command and build, those of earlier calls first, in a file of one a line."""

    def __init__(self, path: Path, command: str) -> None:
        """`command` is with all that the outcomes depend on; lines of other commands and builds are let be."""
        self.path, self.command, self.of = path, command, f"{command}, build {build()}"
        self.writing = threading.Lock()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        # The last line was cut off if the machine was.
        whole = [json.loads(line) for line in lines if line.endswith("}")]
        self.outcomes: dict[str, dict[str, Any]] = {one["key"]: one["outcome"] for one in whole if one["of"] == self.of}

    def once(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is kept under a key, or else what `measure` gives; {"failed": why} if it fails, which is kept too."""
        if key not in self.outcomes:
            try:
                outcome = measure()
            except FAILURES as error:
                outcome = {FAILED: (str(error).strip() or repr(error)).splitlines()[-1]}
            self.add(key, outcome)
        return self.outcomes[key]

    def add(self, key: str, outcome: dict[str, Any]) -> None:
        """Keep an outcome, on the disk at once."""
        with self.writing, self.path.open("a", encoding="utf-8") as file:
            # After a line that was cut off, on one of its own.
            start = "\n" if file.tell() and not self.path.read_bytes().endswith(b"\n") else ""
            file.write(start + json.dumps({"of": self.of, "key": key, "outcome": outcome}) + "\n")
            file.flush()
            os.fsync(file.fileno())
            self.outcomes[key] = outcome
