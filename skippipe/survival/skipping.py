"""The plan of the living while a stage has no replica left: whoever visited it visits a stage it would have skipped."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from skippipe.schedule.costs import Costs
from skippipe.schedule.plan import Plan
from skippipe.schedule.validation import path_problem
from skippipe.survival.succession import Paths, StageLostError, Stages, cheapest_round, load_seconds


def paths_without(plan: Plan, stages: Stages, costs: Costs, is_anew: bool) -> Paths:
    """The paths of a plan whose living are in `stages`, some of which are empty; StageLostError if stage 0 is.

    Instead of an empty stage a microbatch visits the nearest of those that it would have skipped (survival after
    CheckFree, arXiv 2506.15461, whose lost stages are replaced by neighbours), of equally near ones the one that is
    visited least. If it skips none, its path is shorter, as are all others then. Nodes are chosen as heirs are;
    if it `is_anew`, all but the origin of a microbatch whose stages change: their neighbours are others then, and the
    link between two that were none before may be the slowest.
    """
    if not stages[0]:
        raise StageLostError([0])
    living = [stage for stage, nodes in enumerate(stages) if nodes]
    length = min(plan.path_length, len(living))
    stage_of, visits = plan.stage_of(), [0] * len(stages)
    ways = []
    for path in plan.paths:
        ways.append(stages_instead([stage_of[node] for node in path], living, length, visits))
        for stage in ways[-1]:
            visits[stage] += 1
    load_s, return_s = load_seconds(costs), costs.hop_s + costs.hop_s.T
    given = np.zeros(len(costs.forward_s), dtype=np.int64)
    paths = list(plan.paths)
    left = [{stage_of[node]: node for node in path if node in stages[stage_of[node]]} for path in paths]
    # Those that stay as they are come first: whoever is chosen for another has their load to bear too.
    for place in sorted(range(len(paths)), key=lambda place: len(left[place]) < len(paths[place])):
        path, way, fixed = paths[place], ways[place], left[place]
        if len(fixed) < len(path):
            if is_anew and way != [stage_of[node] for node in path]:
                fixed = {0: fixed[0]} if 0 in fixed else {}
            choices = [(fixed[stage],) if stage in fixed else stages[stage] for stage in way]
            path = paths[place] = cheapest_round(choices, [load_s * given] * len(way), return_s)
        given[list(path)] += 1
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
