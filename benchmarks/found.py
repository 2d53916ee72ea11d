"""What is found in a soak, kept in a file after each fault: one that is cut short goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.soaking import Fault


@dataclass
class Struck:
    """A fault that has come."""

    fault: Fault
    nodes: tuple[int, ...]
    moment: float
    gap_s: float = 0.0
    """Between the ends of iterations that it fell between."""


@dataclass
class Found:
    """What is found in all runs of a soak."""

    struck: list[Struck] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    samples: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    """Of each process that is watched: anonymous memory in MB, and descriptors."""
    gaps: list[float] = field(default_factory=list)
    """Real seconds between ends of iterations."""
    seconds: float = 0.0
    """That runs have trained for."""
    calls: int = 0
    """Of the soak: more than one if it was cut short."""
    folders: list[str] = field(default_factory=list)
    """Of all runs."""
    is_over: bool = False
    """Whether all faults have come, and the run after the last one has ended."""

    def save(self, path: Path, of: str) -> None:
        """Keep it, in place of what was kept; `of` says what is soaked."""
        struck = [{**dataclasses.asdict(each), "fault": each.fault.name} for each in self.struck]
        document = {"of": of, **vars(self), "struck": struck}
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(json.dumps(document), encoding="utf-8")
        os.replace(beside, path)

    @classmethod
    def load(cls, path: Path, of: str) -> Self:
        """What was kept, or nothing yet if that is of another soak."""
        document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if document.pop("of", None) != of:
            return cls()
        # Whatever the clock said then, it was long ago.
        struck = [
            Struck(Fault[each["fault"]], tuple(each["nodes"]), -math.inf, each["gap_s"])
            for each in document.pop("struck")
        ]
        samples = document.pop("samples")
        found = cls(struck=struck, **document)
        for name, taken in samples.items():
            found.samples[name] = [(memory, descriptors) for memory, descriptors in taken]
        return found
