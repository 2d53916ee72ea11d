"""What a solver is: it finds the plan of one setting for an instance whose stages are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from skippipe.schedule import Plan
from skippipe.schedule.arrays import Integers
from skippipe.search.config import SearchConfig
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress


@dataclass(frozen=True)
class SolverOptions:
    """What every solver gets beside the instance."""

    config: SearchConfig
    """Seed and effort."""
    seconds: float
    """Time for this setting; what is best by then is the plan."""
    start: Integers | None = None
    """Paths of a round, (origins x memory, path length), to start from if the choice of the stages found some."""
    found: dict[str, Plan] = field(default_factory=dict)
    """Plans of the settings searched before this one, to start from."""
    progress: Progress = field(default_factory=Progress)
    assigned: tuple[tuple[int, ...], ...] | None = None
    """GCMA's best stages, if the search chose others."""


Solver = Callable[[Instance, SolverOptions], Plan]
"""Finds one setting's plan."""
