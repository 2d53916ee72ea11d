"""Pictures of a schedule: the Gantt chart of an iteration and the paths through the stages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skippipe.report.drawing import (
    DARK,
    FOOT_INCHES,
    HEAD_INCHES,
    MARGIN,
    box_width,
    draw_picture,
    new_figure,
    node_name,
    origin_colours,
    write_title,
)
from skippipe.report.layout import place_paths
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.timeline import BACKWARD, FORWARD, LINK, LOSS, SYNC, Span, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_INCHES, STAGE_ROWS = 0.27, 1.1
"""Height of a node's row, and rows that are left free above each stage for its name."""
SHADES = {FORWARD: 0.45, BACKWARD: 1.0}
"""Opacity of a task's colour."""
SYNC_STYLE: dict[str, Any] = {"facecolor": "0.9", "hatch": "////", "edgecolor": "0.65", "lw": 0}
LOSS_COLOUR = "black"


def draw_gantt(schedule: Schedule, setting: str, path: str | Path, measured: Iterable[Span] | None = None) -> None:
    """Write a PNG of an iteration: a row a node, time from left to right, a bar a task in the colour of its origin.

    Thin lines under a node's bars are what it sends, hatched bars the sync of its stage. The spans of a run, such as
    report.trace.measured_spans gives them, stand beside the expected ones on the same scale.
    Raises UserError if the schedule has no such setting, OSError if the file can't be written.
    """
    plan = schedule.plan(setting)
    panels = {"expected": schedule.simulate(setting)}
    if measured is not None:
        panels["measured"] = Timeline(tuple(measured))
    rows = row_places(plan)
    height = ROW_INCHES * (schedule.nodes + STAGE_ROWS * len(plan.stages)) + 1.4
    figure = new_figure(11.0 if measured is None else 18.0, height)
    figure.set_layout_engine("constrained", h_pad=0.1, w_pad=0.1)
    axes = figure.subplots(1, len(panels), sharey=True, sharex=True, squeeze=False)[0]
    colours = origin_colours(plan)
    for axis, (name, timeline) in zip(axes, panels.items(), strict=True):
        for span in timeline:
            draw_span(axis, span, rows[span.node], plan, colours)
        axis.set_title(
            f"{setting} on {schedule.network_name}, {name}:"
            f" iteration {timeline.iteration_s:.1f} s, step {timeline.step_s:.1f} s",
            fontsize=11,
        )
        axis.set_xlabel("seconds from the first forward", fontsize=10)
        axis.set_xlim(left=0)
        axis.grid(axis="x", linewidth=0.4)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        name_stages(axis, plan, rows)
    label_rows(axes[0], schedule, rows, colours)
    add_legend(figure)
    figure.savefig(path)


def row_places(plan: Plan) -> dict[int, float]:
    """Height of each node's row: stages one below the other with a gap between them."""
    places: dict[int, float] = {}
    for stage, nodes in enumerate(plan.stages):
        for node in nodes:
            places[node] = len(places) + STAGE_ROWS * stage
    return places


def draw_span(axis: Axes, span: Span, row: float, plan: Plan, colours: dict[int, Any]) -> None:
    """One bar; links are thin lines under the tasks of their sender."""
    width = span.end_s - span.start_s
    if span.microbatch is None:
        axis.barh(row, width, left=span.start_s, height=0.5, **SYNC_STYLE)
        return
    colour = colours[plan.paths[span.microbatch][0]]
    if span.kind == LINK:
        axis.plot([span.start_s, span.end_s], [row + 0.44] * 2, color=colour, lw=1.2, alpha=0.7, solid_capstyle="butt")
    elif span.kind == LOSS:
        axis.barh(row, width, left=span.start_s, height=0.72, color=LOSS_COLOUR)
    else:
        axis.barh(row, width, left=span.start_s, height=0.72, color=colour, alpha=SHADES[span.kind], ec="white", lw=0.5)


def name_stages(axis: Axes, plan: Plan, rows: dict[int, float]) -> None:
    """The stage's name and a line above its first row."""
    for stage, nodes in enumerate(plan.stages):
        top = rows[nodes[0]] - 0.62
        axis.axhline(top, color="0.85", lw=0.8, zorder=0)
        text = axis.text(0.002, top - 0.06, f"stage {stage}", fontsize=8.5, color=DARK, weight="bold")
        text.set_transform(axis.get_yaxis_transform())


def label_rows(axis: Axes, schedule: Schedule, rows: dict[int, float], colours: dict[int, Any]) -> None:
    """Node and location at each row, origins in their colour."""
    axis.set_yticks(list(rows.values()), [node_name(schedule, node) for node in rows], fontsize=9)
    for node, label in zip(rows, axis.get_yticklabels(), strict=True):
        if node in colours:
            label.set(color=colours[node], weight="bold")
    axis.set_ylim(max(rows.values()) + 0.8, -1.5)


def add_legend(figure: Figure) -> None:
    """Kinds of spans, below the chart."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color="0.35", alpha=SHADES[kind], label=kind, lw=0) for kind in (FORWARD, BACKWARD)]
    handles.append(Patch(color=LOSS_COLOUR, label=LOSS))
    handles.append(Line2D([], [], color="0.35", lw=1.5, label=f"{LINK} (at its sender)"))
    handles.append(Patch(label=SYNC, **SYNC_STYLE))
    title = "colour: the origin of the microbatch (the nodes of stage 0)"
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, title=title, frameon=False
    )
    legend.get_title().set_fontsize(9)


def draw_paths(schedule: Schedule, setting: str, path: str | Path) -> None:
    """Write a PNG of all paths: a column a stage, a line from node to node, as wide as microbatches share it.

    A line has the colour of the origin whose microbatches it is for, and passes the stages that they skip between
    the boxes of the nodes; dashed lines step back to a stage that was passed over (a swap).
    Raises UserError if the schedule has no such setting, OSError if the file can't be written.
    """
    plan = schedule.plan(setting)
    picture = place_paths(plan, box_width(schedule))
    figure = new_figure(picture.width + 2 * MARGIN, picture.height + HEAD_INCHES + FOOT_INCHES)
    visits = f"each visits {plan.path_length} of {len(plan.stages)} stages"
    title = f"{setting} on {schedule.network_name}: {len(plan.paths)} microbatches, {visits}"
    write_title(figure, f"{title}; step {plan.expected_step_s:.1f} s")
    draw_picture(figure, schedule, plan, picture, MARGIN, FOOT_INCHES)
    figure.savefig(path)
