"""Pictures of a schedule: the Gantt chart of an iteration and the paths through the stages."""

from __future__ import annotations

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
from skippipe.report.marks import CHANGE_POINTS, TAKEN_OVER, draw_marks, mark_handles
from skippipe.report.measured import Measured
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.timeline import BACKWARD, FORWARD, LINK, LOSS, SYNC, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_INCHES, STAGE_ROWS = 0.27, 1.1
"""Height of a node's row, and rows that are left free above each stage for its name."""
ROOM = 1.02
"""Width of a chart over the time that it shows."""
SHADES = {FORWARD: 0.45, BACKWARD: 1.0}
"""Opacity of a task's colour."""
SYNC_STYLE: dict[str, Any] = {"facecolor": "0.9", "hatch": "////", "edgecolor": "0.65", "lw": 0}
LOSS_COLOUR = "black"


def draw_gantt(schedule: Schedule, setting: str, path: str | Path, measured: Measured | None = None) -> None:
    """Write a PNG of an iteration: a row a node, time from left to right, a bar a task in the colour of its origin.

    Thin lines under a node's bars are what it sends, hatched bars the sync of its stage. An iteration of a run, as
    report.measured.measured_run gives it, stands beside the expected one on the same scale, several stand alone. With
    them is what became of nodes: see report.marks. A node's row is that of the stage which it has in the setting.
    Raises UserError if the schedule has no such setting, OSError if the file can't be written.
    """
    plan = schedule.plan(setting)
    panels = [] if measured is None else [measured]
    if measured is None or measured.iterations == 1:
        panels.insert(0, Measured(schedule.simulate(setting), "expected", 1))
    rows = row_places(plan)
    height = ROW_INCHES * (schedule.nodes + STAGE_ROWS * len(plan.stages)) + 1.4
    figure = new_figure(11.0 if measured is None else 18.0, height)
    figure.set_layout_engine("constrained", h_pad=0.1, w_pad=0.1)
    axes = figure.subplots(1, len(panels), sharey=True, sharex=True, squeeze=False)[0]
    colours = origin_colours(plan)
    pad = 6 + CHANGE_POINTS * max(len(panel.changes) for panel in panels)
    for axis, panel in zip(axes, panels, strict=True):
        for span in panel.timeline:
            draw_span(axis, span, rows[span.node], plan, colours, span in panel.taken_over)
        draw_marks(axis, panel, rows)
        axis.set_title(f"{setting} on {schedule.network_name}, {panel.title}", fontsize=11, pad=pad)
        axis.set_xlabel("seconds from the first forward", fontsize=10)
        axis.set_xlim(min(panel.begin_s for panel in panels), ROOM * max(panel.end_s for panel in panels))
        axis.grid(axis="x", linewidth=0.4)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        name_stages(axis, plan, rows)
    label_rows(axes[0], schedule, rows, colours)
    add_legend(figure, panels[-1])
    figure.savefig(path)


def row_places(plan: Plan) -> dict[int, float]:
    """Height of each node's row: stages one below the other with a gap between them."""
    places: dict[int, float] = {}
    for stage, nodes in enumerate(plan.stages):
        for node in nodes:
            places[node] = len(places) + STAGE_ROWS * stage
    return places


def draw_span(axis: Axes, span: Span, row: float, plan: Plan, colours: dict[int, Any], is_taken_over: bool) -> None:
    """One bar, striped if it is an heir's; links are thin lines under the tasks of their sender."""
    width = span.end_s - span.start_s
    if span.microbatch is None:
        axis.barh(row, width, left=span.start_s, height=0.5, **SYNC_STYLE)
        return
    colour = colours[plan.paths[span.microbatch][0]]
    if span.kind == LINK:
        axis.plot([span.start_s, span.end_s], [row + 0.44] * 2, color=colour, lw=1.2, alpha=0.7, solid_capstyle="butt")
        return
    style: dict[str, Any] = {"facecolor": LOSS_COLOUR, "lw": 0}
    if span.kind != LOSS:
        style = {"facecolor": colour, "alpha": SHADES[span.kind], "lw": 0.5}
    hatch = TAKEN_OVER if is_taken_over else None
    axis.barh(row, width, left=span.start_s, height=0.72, edgecolor="white", hatch=hatch, **style)


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


def add_legend(figure: Figure, shown: Measured) -> None:
    """Kinds of spans, below the chart."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color="0.35", alpha=SHADES[kind], label=kind, lw=0) for kind in (FORWARD, BACKWARD)]
    handles.append(Patch(color=LOSS_COLOUR, label=LOSS))
    handles.append(Line2D([], [], color="0.35", lw=1.5, label=f"{LINK} (at its sender)"))
    handles.append(Patch(label=SYNC, **SYNC_STYLE))
    handles += mark_handles(shown)
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
