"""Pictures of a plan: the nodes as the links place them, and the stages with the hops that paths take between them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skippipe.schedule import Plan, Schedule
from skippipe.schedule.arrays import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELLED = 60
"""Nodes up to which each one carries its number."""
LEAST_DISTANCE, SPREAD_STEPS = 0.062, 200
"""Distance of nodes on the map, whose longer side is 1, and the steps in which they are pushed that far apart."""


def draw_maps(schedule: Schedule, setting: str, path: Path) -> None:
    """Write a PNG with the node map and the stages of one setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plan = schedule.plan(setting)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(17, 8), width_ratios=(1, 1.15), layout="constrained")
    draw_node_map(left, schedule, plan)
    draw_stages(right, schedule, plan)
    figure.suptitle(
        f"{setting} on {schedule.network_name}: {plan.expected_iteration_s:.2f} s an iteration,"
        f" {plan.expected_step_s:.2f} s a step"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def places_from_hops(hop_s: Floats) -> Floats:
    """Places of nodes on a plane, (nodes, 2), whose distances come near the hops (classical scaling)."""
    near = np.minimum((hop_s + hop_s.T) / 2, np.quantile(hop_s, 0.98))
    np.fill_diagonal(near, 0.0)
    squared = near**2
    centred = squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    places: Floats = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0.0))
    return places


def spread_apart(places: Floats) -> Floats:
    """The places pushed apart until no two nodes cover each other, (nodes, 2)."""
    spread = places / float(np.ptp(places, axis=0).max() or 1.0)
    angles = np.arange(len(places)) * 2.4
    spread = spread + 1e-3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(SPREAD_STEPS):
        between = spread[:, None] - spread[None]
        distance = np.linalg.norm(between, axis=2) + np.eye(len(places))
        push = np.maximum(LEAST_DISTANCE - distance, 0.0) / distance
        spread = spread + (between * push[:, :, None]).sum(axis=1) / 4
    return spread


def draw_node_map(axes: Axes, schedule: Schedule, plan: Plan) -> None:
    """Nodes near each other where a hop between them is short; the colour is the stage, lines are the hops of paths."""
    from matplotlib import colormaps

    colours = colormaps["tab20" if len(plan.stages) > 10 else "tab10"]
    labelled = schedule.nodes <= MOST_LABELLED
    places = places_from_hops(schedule.costs.hop_s)
    if labelled:
        places = spread_apart(places)
    used = Counter(tuple(sorted(pair)) for pair in hops_of(plan))
    for (a, b), count in used.items():
        axes.plot(*places[[a, b]].T, color="0.6", linewidth=0.4 + 2.0 * count / max(used.values()), zorder=1)
    for stage, members in enumerate(plan.stages):
        x, y = places[list(members)].T
        axes.scatter(x, y, s=300 if labelled else 30, color=colours(stage), label=f"stage {stage}", zorder=2)
    if labelled:
        for node, (x, y) in enumerate(places):
            label_node(axes, schedule, node, x, y)
    axes.set_title("Nodes: the shorter a hop, the closer; lines are hops of paths")
    axes.legend(loc="best", fontsize=9, ncols=1 + len(plan.stages) // 7, markerscale=0.5 if labelled else 1)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_stages(axes: Axes, schedule: Schedule, plan: Plan) -> None:
    """Stages as columns of nodes, with the hops of the paths; the thicker, the more microbatches."""
    from matplotlib import colormaps

    colours, columns = colormaps["tab10"], plan.stages
    tallest = max(len(members) for members in columns)
    place = {
        node: (stage, (tallest - len(members)) / 2 + row)
        for stage, members in enumerate(columns)
        for row, node in enumerate(members)
    }
    origins = {origin: turn for turn, origin in enumerate(columns[0])}
    counts: Counter[tuple[int, int, int]] = Counter()
    for path in plan.paths:
        counts.update((path[0], a, b) for a, b in pairwise(path))
    for (origin, a, b), count in counts.items():
        bend = 0.06 * (origins[origin] - len(origins) / 2) + (0.25 if place[a][0] > place[b][0] else 0.0)
        axes.annotate(
            "", place[b], place[a], zorder=1,
            arrowprops={"arrowstyle": "-|>", "color": colours(origins[origin] % 10), "alpha": 0.6, "shrinkA": 11,
                        "shrinkB": 11, "linewidth": 0.5 + 2.5 * count / max(counts.values()),
                        "connectionstyle": f"arc3,rad={bend}"},
        )  # fmt: skip
    labelled = schedule.nodes <= MOST_LABELLED
    for node, (x, y) in place.items():
        colour = colours(origins[node] % 10) if node in origins else "0.35"
        axes.scatter(x, y, s=380 if labelled else 25, color=colour, zorder=2)
        if labelled:
            label_node(axes, schedule, node, x, y)
    axes.set_xticks(range(len(columns)), [f"stage {stage}" for stage in range(len(columns))])
    axes.set_yticks([])
    axes.set_ylim(tallest - 0.3, -0.6)
    axes.set_xlim(-0.4, len(columns) - 0.6)
    axes.set_title("Paths between the stages, one colour an origin; width: microbatches")


def label_node(axes: Axes, schedule: Schedule, node: int, x: float, y: float) -> None:
    """A node's number on its circle and its location below."""
    axes.annotate(str(node), (x, y), ha="center", va="center", fontsize=9, color="white", weight="bold", zorder=3)
    axes.annotate(schedule.locations[node][:11], (x, y), xytext=(0, -18), textcoords="offset points", ha="center",
                  fontsize=7.5, zorder=3)  # fmt: skip


def hops_of(plan: Plan) -> list[tuple[int, int]]:
    """Every hop of every path's forward, the one back to the origin too."""
    return [(a, b) for path in plan.paths for a, b in zip(path, (*path[1:], path[0]), strict=True)]
