"""A run's views, views.jsonl: who took part from when on, a line each time that this changes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from skippipe.report.records import append_once

VIEWS = "views.jsonl"


def append_view(folder: Path, document: dict[str, Any]) -> None:
    """Add a view's line, unless one of its number is there: each launcher's has times of its own."""

    def is_there(before: bytes) -> bool:
        return document["number"] in [json.loads(line)["number"] for line in before.splitlines()]

    append_once(folder / VIEWS, json.dumps(document), is_there, sys.maxsize)
