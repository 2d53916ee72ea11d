"""Compile the search before its clock runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from skippipe.search.compiled import forget_stale_kernels
from skippipe.search.config import SearchConfig
from skippipe.search.driver import search
from skippipe.search.problem import Instance
from skippipe.search.progress import Progress

PACKAGE = Path(__file__).parent.parent


def warm_up(config: SearchConfig) -> None:
    """Compile every loop of the settings (half a minute, once after an installation) or load it (about a second).

    Searches a tiny instance, so that nothing of it counts against the time budget.
    """
    forget_stale_kernels(PACKAGE)
    tiny = replace(
        config,
        network="gcp-12",
        subset=None,
        locations=(),
        nodes=4,
        stages=2,
        stage_sizes=(2, 2),
        path_length=2,
        memory=1,
        microbatches_per_node=1,
        population=4,
        trials=4,
        constraint_sets=2,
        pipeline_steps=4,
        path_steps=8,
        joint_steps=4,
        robust=0.0,
        seed=0,
        time_budget_s=None,
    )
    search(Instance.from_config(tiny), tiny, Progress())
