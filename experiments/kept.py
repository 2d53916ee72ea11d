"""What searches and runs of the iteration time gave, kept beside the results file that is written from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Times = dict[str, list[float]]
"""Numbers of each setting, one a seed; one alone is a median over seeds that were not kept."""


@dataclass(frozen=True)
class Searches:
    """What one method's searches of one setup gave."""

    setup: str
    method: str
    by: str
    """Command, date and hardware."""
    iteration_s: Times
    step_s: Times
    lost: Times
    """Part of the slowest lone origin's iteration that the plan takes longer, as its origins share nodes."""
    trials: list[int]
    """Offspring that GCMA had time for, one number a seed; none if that was not counted."""


@dataclass(frozen=True)
class Runs:
    """What run.sh measured, one summary a setting."""

    by: str
    summaries: list[dict[str, Any]]


@dataclass
class Kept:
    """All of it: a later command replaces what it measures again, and the rest stays."""

    searches: dict[tuple[str, str], Searches] = field(default_factory=dict)
    """By setup and method."""
    runs: Runs | None = None

    @classmethod
    def load(cls, path: Path) -> Kept:
        """What a file has, or nothing if there is none."""
        if not path.exists():
            return cls()
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = [Searches(**entry) for entry in document["searches"]]
        runs = document["runs"] and Runs(**document["runs"])
        return cls({(entry.setup, entry.method): entry for entry in entries}, runs)

    def save(self, path: Path) -> None:
        """Write the file, a line for each setup and method."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(asdict(entry)) for entry in self.searches.values())
        runs = json.dumps(self.runs and asdict(self.runs))
        path.write_text(f'{{"searches": [\n{lines}\n],\n"runs": {runs}}}\n', encoding="utf-8")

    def values(self, what: str, setup: str, method: str, setting: str) -> list[float]:
        """Numbers over the seeds, of iteration_s, step_s or lost; none if they were not measured."""
        entry = self.searches.get((setup, method))
        times: Times = getattr(entry, what) if entry else {}
        return times.get(setting, [])

    @property
    def measured(self) -> list[str]:
        """Command, date and hardware of everything in here."""
        return list(
            dict.fromkeys([*(entry.by for entry in self.searches.values()), *([self.runs.by] if self.runs else [])])
        )
