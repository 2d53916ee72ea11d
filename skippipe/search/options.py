"""What every solver gets beside the instance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from skippipe.schedule import Plan
from skippipe.search.constraints import Whole
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress


@dataclass(frozen=True)
class SolverOptions:
    """Effort, seed and progress of one setting's search."""

    seed: int
    """Seed of every random choice."""
    seconds: float
    """Time for this setting; what is best by then is the plan."""
    conflict_nodes: int
    """Constraint sets that conflict-based search expands, each for whole rounds and for single microbatches."""
    pipeline_steps: int
    """Moves tried on paths that an origin's microbatches share."""
    path_steps: int
    """Moves tried on the path of every microbatch of a round."""
    joint_steps: int
    """Moves of each chain of the joint search."""
    robust: float
    """Relative error of the links over which the joint search takes the mean."""
    start: Whole | None = None
    """Paths of a round, (origins x memory, path length), to start from where the choice of the stages found some."""
    found: dict[str, Plan] = field(default_factory=dict)
    """Plans of the settings searched before this one, to start from."""
    progress: Progress = field(default_factory=Progress)


Solver = Callable[[Instance, SolverOptions], Plan]
"""Finds one setting's plan for an instance whose stages are given."""
