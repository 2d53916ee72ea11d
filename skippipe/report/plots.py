"""Pictures of a schedule: the Gantt chart of an iteration and the paths through the stages."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skippipe.schedule import Plan, Schedule
from skippipe.schedule.timeline import BACKWARD, FORWARD, LINK, LOSS, SYNC, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_INCHES = 0.27
PIXELS_PER_INCH = 130
SHADES = {FORWARD: 0.45, BACKWARD: 1.0}
"""Opacity of a task's colour."""
SYNC_COLOUR, LOSS_COLOUR = "0.8", "black"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, drawn without a display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=PIXELS_PER_INCH, layout="constrained")


def origin_colours(plan: Plan) -> dict[int, Any]:
    """A colour for each origin; up to 20 differ."""
    from matplotlib import colormaps

    origins = sorted({path[0] for path in plan.paths})
    palette = colormaps["tab10" if len(origins) <= 10 else "tab20"]
    return {origin: palette(number % palette.N) for number, origin in enumerate(origins)}


def draw_gantt(schedule: Schedule, setting: str, path: Path, measured: list[Span] | None = None) -> None:
    """Write a PNG: a row a node, stages apart, one colour an origin; measured spans stand beside the expected ones."""
    plan = schedule.plan(setting)
    panels = {"expected": list(schedule.simulate(setting))} | ({"measured": measured} if measured is not None else {})
    rows = row_places(plan)
    height = ROW_INCHES * (schedule.nodes + len(plan.stages)) + 1.6
    figure = new_figure(11.0 if measured is None else 18.0, height)
    axes = figure.subplots(1, len(panels), sharey=True, sharex=True, squeeze=False)[0]
    colours = origin_colours(plan)
    for axis, (name, spans) in zip(axes, panels.items(), strict=True):
        for span in spans:
            draw_span(axis, span, rows[span.node], plan, colours)
        end = max(span.end_s for span in spans if span.kind != SYNC)
        step = max(span.end_s for span in spans)
        axis.set_title(f"{setting}, {name}: iteration {end:.1f} s, step {step:.1f} s", fontsize=11)
        axis.set_xlabel("seconds from the first forward", fontsize=10)
        axis.set_xlim(left=0)
        axis.grid(axis="x", linewidth=0.4)
        axis.set_axisbelow(True)
    label_rows(axes[0], schedule, plan, rows)
    add_legend(figure, schedule, colours)
    figure.savefig(path)


def row_places(plan: Plan) -> dict[int, float]:
    """Height of each node's row: stages one below the other with a gap between them."""
    places: dict[int, float] = {}
    for stage, nodes in enumerate(plan.stages):
        for node in nodes:
            places[node] = len(places) + 0.8 * stage
    return places


def draw_span(axis: Axes, span: Span, row: float, plan: Plan, colours: dict[int, Any]) -> None:
    """One bar; links are thin lines under the tasks of their sender."""
    width = span.end_s - span.start_s
    if span.microbatch is None:
        axis.barh(row, width, left=span.start_s, height=0.5, color=SYNC_COLOUR, hatch="////", edgecolor="0.55", lw=0)
        return
    colour = colours[plan.paths[span.microbatch][0]]
    if span.kind == LINK:
        axis.plot([span.start_s, span.end_s], [row + 0.44] * 2, color=colour, lw=1.2, alpha=0.7, solid_capstyle="butt")
    elif span.kind == LOSS:
        axis.barh(row, width, left=span.start_s, height=0.72, color=LOSS_COLOUR)
    else:
        axis.barh(row, width, left=span.start_s, height=0.72, color=colour, alpha=SHADES[span.kind], ec="white", lw=0.5)


def label_rows(axis: Axes, schedule: Schedule, plan: Plan, rows: dict[int, float]) -> None:
    """Node and location at each row, the stage at the first of its rows."""
    heads = {nodes[0]: stage for stage, nodes in enumerate(plan.stages)}
    labels = [
        (f"stage {heads[node]}    " if node in heads else "") + f"{schedule.locations[node]} {node}" for node in rows
    ]
    axis.set_yticks(list(rows.values()), labels, fontsize=9)
    axis.set_ylim(max(rows.values()) + 0.8, -0.8)


def add_legend(figure: Figure, schedule: Schedule, colours: dict[int, Any]) -> None:
    """Kinds of spans and origins, below the chart."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds: list[Any] = [Patch(color="0.35", alpha=SHADES[kind], label=kind) for kind in (FORWARD, BACKWARD)]
    kinds.append(Patch(color=LOSS_COLOUR, label=LOSS))
    kinds.append(Line2D([], [], color="0.35", lw=1.5, label=LINK))
    kinds.append(Patch(facecolor=SYNC_COLOUR, hatch="////", edgecolor="0.55", lw=0, label=SYNC))
    origins = [Patch(color=c, label=f"from {schedule.locations[node]} {node}") for node, c in colours.items()]
    figure.legend(handles=kinds + origins, loc="outside lower center", ncols=min(7, 5 + len(origins)), fontsize=9)


def draw_paths(schedule: Schedule, setting: str, path: Path) -> None:
    """Write a PNG of all paths: a column a stage, a curve from node to node, as wide as microbatches share it.

    Curves over a column skip its stage; dashed curves step back to a stage that was passed (a swap).
    """
    from matplotlib.lines import Line2D

    plan = schedule.plan(setting)
    tallest = max(len(nodes) for nodes in plan.stages)
    place = {
        node: (float(stage), tallest * (number + 0.5) / len(nodes))
        for stage, nodes in enumerate(plan.stages)
        for number, node in enumerate(nodes)
    }
    figure = new_figure(2.1 * len(plan.stages), 1.05 * tallest + 1.5)
    axis = figure.subplots()
    colours = origin_colours(plan)
    hops = Counter((route[0], a, b) for route in plan.paths for a, b in itertools.pairwise(route))
    for (origin, a, b), count in sorted(hops.items()):
        draw_hop(axis, place[a], place[b], colours[origin], count)
    for node, (x, y) in place.items():
        edge = {"mec": colours[node], "mew": 3} if node in colours else {"mec": "0.3", "mew": 1.5}
        axis.plot(x, y, "o", ms=20, mfc="white", zorder=3, **edge)
        axis.text(x, y, str(node), ha="center", va="center", fontsize=9, zorder=4)
        name = axis.text(x, y + 0.23, schedule.locations[node], ha="center", va="center", fontsize=9, zorder=4)
        name.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6})
    axis.set_xticks(range(len(plan.stages)), [f"stage {stage}" for stage in range(len(plan.stages))], fontsize=11)
    axis.set_yticks([])
    axis.set_xlim(-0.45, len(plan.stages) - 0.55)
    axis.set_ylim(tallest, 0)
    axis.spines[:].set_visible(False)
    title = f"{setting}: paths of {len(plan.paths)} microbatches, step {plan.expected_step_s:.1f} s"
    axis.set_title(title, fontsize=12)
    handles = [Line2D([], [], color="0.4", lw=2, label="forward to a later stage")]
    handles.append(Line2D([], [], color="0.4", lw=2, ls=(0, (4, 2)), label="back to a stage passed over (swap)"))
    handles += [Line2D([], [], color=c, lw=3, label=f"from {schedule.locations[n]} {n}") for n, c in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    figure.savefig(path)


def draw_hop(axis: Axes, a: tuple[float, float], b: tuple[float, float], colour: Any, count: int) -> None:
    """A curve from node to node that bends around the columns that it skips."""
    from matplotlib.patches import FancyArrowPatch

    columns = b[0] - a[0]
    # A level curve over a skipped column would cross the nodes there.
    bend = -0.13 if columns < 0 else 0.0 if columns == 1 else -0.16 if a[1] <= b[1] else 0.16
    arrow = FancyArrowPatch(
        a, b, arrowstyle="-|>", mutation_scale=9, shrinkA=11, shrinkB=11, color=colour, alpha=0.75,
        lw=0.8 + 0.55 * count, ls="solid" if columns > 0 else (0, (4, 2)), connectionstyle=f"arc3,rad={bend}",
    )  # fmt: skip
    axis.add_patch(arrow)
