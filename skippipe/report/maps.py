"""A picture of a plan on its network: the nodes as the links place them, beside the paths through the stages."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skippipe.report.drawing import (
    FONT_SIZE,
    FOOT_INCHES,
    HEAD_INCHES,
    MARGIN,
    axes_in_inches,
    box_width,
    draw_box,
    draw_picture,
    new_figure,
    write,
    write_title,
)
from skippipe.report.layout import NODE_HEIGHT, place_paths
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.arrays import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELLED = 60
"""Nodes up to which each one has a box with its name."""
LEAST_SIDE, ROOM = 5.0, 4.0
"""Least side of the map in inches, and its area over that of the boxes in it."""
BOX_GAP, SPREAD_STEPS = 0.12, 400
"""Free space around boxes in inches, and the steps in which they are pushed that far apart."""
COLUMNS_OF_STAGES = 8
"""Stages that stand side by side in the map's explanation."""


def draw_maps(schedule: Schedule, setting: str, path: str | Path) -> None:
    """Write a PNG with the map of the nodes, the closer the shorter the hops between them, and the setting's paths.

    On the map a colour is a stage and lines are the hops of paths, the way back to the origin too; the paths beside
    it are those of draw_paths.
    Raises UserError if the schedule has no such setting, OSError if the file can't be written.
    """
    plan = schedule.plan(setting)
    box = np.array([box_width(schedule), NODE_HEIGHT])
    places = places_on_map(schedule, box)
    picture = place_paths(plan, float(box[0]))
    map_width, map_height = (float(size) for size in places.max(axis=0) + box / 2)
    height = max(map_height, picture.height) + HEAD_INCHES + FOOT_INCHES
    figure = new_figure(map_width + picture.width + 4 * MARGIN, height)
    times = f"{plan.expected_iteration_s:.1f} s an iteration, {plan.expected_step_s:.1f} s a step"
    write_title(figure, f"{setting} on {schedule.network_name}: {len(plan.paths)} microbatches, {times}")
    map_bottom, bottom = (
        FOOT_INCHES + (height - HEAD_INCHES - FOOT_INCHES - own) / 2 for own in (map_height, picture.height)
    )
    draw_node_map(axes_in_inches(figure, MARGIN, map_bottom, map_width, map_height), schedule, plan, places, box)
    draw_picture(figure, schedule, plan, picture, 3 * MARGIN + map_width, bottom)
    figure.savefig(path)


def places_on_map(schedule: Schedule, box: Floats) -> Floats:
    """Middle of each node on the map in inches, (nodes, 2), with room for a box of this width and height around it."""
    places = places_from_hops(schedule.costs.hop_s)
    side = max(LEAST_SIDE, math.sqrt(ROOM * min(schedule.nodes, MOST_LABELLED) * box.prod()))
    places = places * (side / float(np.ptp(places, axis=0).max() or 1.0))
    if schedule.nodes <= MOST_LABELLED:
        places = spread_apart(places, box + BOX_GAP)
    moved: Floats = places - places.min(axis=0) + box / 2
    return moved


def places_from_hops(hop_s: Floats) -> Floats:
    """Places of nodes on a plane, (nodes, 2), whose distances come near the hops (classical scaling)."""
    near = np.minimum((hop_s + hop_s.T) / 2, np.quantile(hop_s, 0.98))
    np.fill_diagonal(near, 0.0)
    squared = near**2
    centred = squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    places: Floats = vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0.0))
    return places


def spread_apart(places: Floats, box: Floats) -> Floats:
    """The places, (nodes, 2), pushed apart until boxes of this width and height around them don't overlap."""
    angles = np.arange(len(places)) * 2.4
    spread = places + 1e-3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(SPREAD_STEPS):
        between = spread[:, None] - spread[None]
        overlap = np.maximum(box - np.abs(between), 0.0)
        overlap[overlap.min(axis=2) == 0.0] = 0.0
        overlap[np.diag_indices(len(places))] = 0.0
        # The shorter way out is along the axis of the smaller overlap.
        shorter = overlap == overlap.min(axis=2, keepdims=True)
        spread = spread + (np.sign(between) * overlap * shorter).sum(axis=1) / 4
    return spread


def draw_node_map(axes: Axes, schedule: Schedule, plan: Plan, places: Floats, box: Floats) -> None:
    """Nodes at their places on axes in inches; the colour is the stage, lines are the hops of paths."""
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    # Another palette than that of the origins: a stage is no origin, and stages have an order.
    shades = colormaps["viridis"](np.linspace(0.0, 0.92, len(plan.stages)))
    labelled = schedule.nodes <= MOST_LABELLED
    used = Counter((min(pair), max(pair)) for pair in hops_of(plan))
    for (a, b), count in used.items():
        width = 0.4 + 2.4 * count / max(used.values())
        axes.plot(*places[[a, b]].T, color="0.72" if labelled else "0.9", linewidth=width, zorder=1, clip_on=False)
    for node, stage in plan.stage_of().items():
        x, y = map(float, places[node])
        if labelled:
            draw_box(axes, schedule, node, (x, y), (float(box[0]), float(box[1])), tuple(shades[stage]))
        else:
            axes.scatter(x, y, s=30, color=shades[stage], zorder=2, clip_on=False)
    middle, text = float(np.ptp(axes.get_xlim())) / 2, "nodes: the shorter a hop, the closer; lines: hops of paths"
    write(axes, middle, -0.26, text, fontsize=FONT_SIZE + 1)
    handles = [Patch(color=shade, label=f"stage {stage}") for stage, shade in enumerate(shades)]
    legend = axes.legend(
        handles=handles,
        ncols=min(len(handles), COLUMNS_OF_STAGES),
        fontsize=FONT_SIZE,
        frameon=False,
        handlelength=1.0,
        columnspacing=1.0,
        loc="upper center",
    )
    legend.set_bbox_to_anchor((middle, float(max(axes.get_ylim())) + 0.12), axes.transData)


def hops_of(plan: Plan) -> list[tuple[int, int]]:
    """Every hop of every path's forward, the one back to the origin too."""
    return [(a, b) for path in plan.paths for a, b in zip(path, (*path[1:], path[0]), strict=True)]
