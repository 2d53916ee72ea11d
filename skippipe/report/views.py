"""A run's views, views.jsonl: who took part from when on, a line each time that this changes."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

VIEWS = "views.jsonl"


def append_view(folder: Path, document: dict[str, Any]) -> None:
    """Add a view's line, unless one of its number is there: launchers that share the folder all write theirs."""
    with (folder / VIEWS).open("ab+") as file:
        # Closing the file gives the lock back.
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.seek(0)
        numbers = [json.loads(line)["number"] for line in file]
        if document["number"] not in numbers:
            file.seek(0, os.SEEK_END)
            file.write((json.dumps(document) + "\n").encode())
