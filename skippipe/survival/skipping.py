"""The plan of the living while a stage has no replica left: whoever visited it visits a stage it would have skipped."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from skippipe.schedule.arrays import Floats
from skippipe.schedule.costs import Costs
from skippipe.schedule.plan import Plan
from skippipe.schedule.validation import path_problem
from skippipe.survival.succession import Paths, StageLostError, Stages, cheapest_round, load_seconds


def paths_without(plan: Plan, stages: Stages, costs: Costs) -> Paths:
    """The paths of a plan whose living are in `stages`, some of which are empty; StageLostError if stage 0 is.

    Instead of an empty stage a microbatch visits the nearest of those that it would have skipped (survival after
    CheckFree, arXiv 2506.15461, whose lost stages are replaced by neighbours), of equally near ones the one that is
    visited least. If it skips none, its path is shorter, as are all others then. Nodes are chosen as heirs are.
    """
    if not stages[0]:
        raise StageLostError([0])
    living = [stage for stage, nodes in enumerate(stages) if nodes]
    length = min(plan.path_length, len(living))
    stage_of = plan.stage_of()
    visits = [0] * len(stages)
    given = np.zeros(len(costs.forward_s), dtype=np.int64)
    load_s, return_s = load_seconds(costs), costs.hop_s + costs.hop_s.T
    paths = []
    for path in plan.paths:
        before = {stage_of[node]: node for node in path}
        visited = stages_instead(list(before), living, length, visits)
        for stage in visited:
            visits[stage] += 1
        kept = [before.get(stage) if before.get(stage) in stages[stage] else None for stage in visited]
        choices = [stages[stage] if node is None else (node,) for stage, node in zip(visited, kept, strict=True)]
        node_s: list[Floats] = [load_s * given if node is None else np.zeros_like(load_s) for node in kept]
        chosen = cheapest_round(choices, node_s, return_s)
        given[[node for node, own in zip(chosen, kept, strict=True) if own is None]] += 1
        paths.append(chosen)
    return tuple(paths)


def stages_instead(visited: list[int], living: Collection[int], length: int, visits: list[int]) -> list[int]:
    """So many living stages in place of those that a path visited, in the order of before if all of these live."""
    kept = [stage for stage in visited if stage in living]
    gone = [stage for stage in visited if stage not in living]
    for lost in gone[: length - len(kept)]:
        # Where it can be had, one that keeps the path within the rules on skipping.
        skipped = [stage for stage in living if stage not in kept]
        kept.append(
            min(
                skipped,
                key=lambda stage: (
                    path_problem(sorted([*kept, stage])) is not None,
                    abs(stage - lost),
                    visits[stage],
                    stage,
                ),
            )
        )
    return kept if not gone else sorted(kept)
