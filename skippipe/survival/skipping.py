"""Paths of the living on other nodes, or other stages: whoever visited a lost one visits what it would have skipped."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from skippipe.schedule.costs import Costs
from skippipe.schedule.plan import Plan
from skippipe.schedule.validation import path_problem
from skippipe.survival.succession import Paths, StageLostError, Stages, cheapest_round, load_seconds

DETOUR = 2.0
"""How many times cheaper other stages must be than those of before: these are what was trained for the microbatch."""


def paths_without(plan: Plan, stages: Stages, costs: Costs, is_anew: bool) -> Paths:
    """The paths of a plan whose living are in `stages`, some of which are empty; StageLostError if stage 0 is.

    Instead of an empty stage a microbatch visits the nearest of those that it would have skipped (survival after
    CheckFree, arXiv 2506.15461, whose lost stages are replaced by neighbours), of equally near ones the one that is
    visited least. If it skips none, its path is shorter, as are all others then. Nodes are chosen as heirs are;
    if it `is_anew`, all but the origin of a microbatch that anybody is lost of: the neighbours of who is left are
    others then, and the link between two that were none before may be the slowest. Such a microbatch visits another
    stage instead of one of its own if it takes more than DETOUR times as long otherwise: all who are left may be far.
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
            around = [way]
            if is_anew:
                fixed = {0: fixed[0]} if 0 in fixed else {}
                around += detours([stage_of[node] for node in path], way, living, length, visits)
            nodes = [[(fixed[stage],) if stage in fixed else stages[stage] for stage in other] for other in around]
            found = [cheapest_round(choices, [load_s * given] * length, return_s) for choices in nodes]
            best = min(range(len(found)), key=lambda number: found[number])
            best = best if DETOUR * found[best][0] < found[0][0] else 0
            path = paths[place] = found[best][1]
            for stage in way:
                visits[stage] -= 1
            for stage in around[best]:
                visits[stage] += 1
        given[list(path)] += 1
    return tuple(paths)


def detours(
    visited: list[int], way: list[int], living: Collection[int], length: int, visits: list[int]
) -> list[list[int]]:
    """Other stages for a microbatch that visited some: each without one that it, and not it alone, would visit now."""
    left = [[stage for stage in living if stage != avoided] for avoided in way[1:] if visits[avoided] > 1]
    return [stages_instead(visited, others, length, visits) for others in left if len(others) >= length]


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
