"""What pictures share: figures in inches, colours, boxes of nodes, and the drawing of paths between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from skippipe.report.layout import Picture, Point, Route
from skippipe.schedule import Plan, Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Curve

PIXELS_PER_INCH, MOST_PIXELS = 130, 30_000
"""How fine pictures are, and the longest side of one that is very large."""
POINTS_PER_INCH = 72
MARGIN, HEAD_INCHES, FOOT_INCHES = 0.3, 0.95, 0.85
"""Free space around a picture of paths, in inches: sides, title and stages above it, explanation below."""
FONT_SIZE, LONGEST_NAME = 9.5, 18
ARROW_LENGTH, ARROW_WIDTH = 0.1, 0.06
"""Of arrow heads, in inches; the width is added to the line's."""
DASHES = (0.0, (2.2, 1.1))
"""Offset and lengths of a swap's dashes and gaps, in widths of its line."""
DARK, BAND = "0.25", "0.955"
BOX_STYLE, BAND_STYLE = "round,pad=0,rounding_size=0.1", "round,pad=0.09,rounding_size=0.12"
BRIGHT = 0.62
"""Brightness of a box from which on its text is black."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, drawn without a display, less fine if it would be very large."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=min(PIXELS_PER_INCH, MOST_PIXELS / max(width, height)))


def axes_in_inches(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes without frame, at a place of the figure, in whose data an inch is 1 and y runs downwards."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def origin_colours(plan: Plan) -> dict[int, Any]:
    """A colour for each origin; up to 20 differ."""
    from matplotlib import colormaps

    origins = sorted({path[0] for path in plan.paths})
    colours = colormaps["tab10" if len(origins) <= 10 else "tab20"]
    return {origin: colours(place % colours.N) for place, origin in enumerate(origins)}


def node_name(schedule: Schedule, node: int) -> str:
    """A node's number and location, the end of a long one left out."""
    name = f"{node} {schedule.locations[node]}"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def box_width(schedule: Schedule) -> float:
    """Inches that the longest name of a node needs."""
    from matplotlib.textpath import TextPath

    names = {node_name(schedule, node) for node in range(schedule.nodes)}
    longest = max(TextPath((0, 0), name, size=FONT_SIZE).get_extents().width for name in names)
    return float(longest) / POINTS_PER_INCH + 0.22


def draw_box(axes: Axes, schedule: Schedule, node: int, centre: Point, size: Point, colour: Any = None) -> None:
    """A node's box with its name, filled with a colour or white."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = centre, size
    face, edge = ("white", DARK) if colour is None else (colour, colour)
    box = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=BOX_STYLE, fc=face, ec=edge, lw=1.2)
    box.set(gid=f"node {node}", zorder=3, clip_on=False)
    axes.add_patch(box)
    red, green, blue = to_rgb(face)
    bright = 0.3 * red + 0.59 * green + 0.11 * blue > BRIGHT
    write(axes, x, y, node_name(schedule, node), color="black" if bright else "white", zorder=4)


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text around a point."""
    axes.text(x, y, text, ha="center", va="center_baseline", **{"fontsize": FONT_SIZE, "color": DARK, **style})


def draw_picture(figure: Figure, schedule: Schedule, plan: Plan, picture: Picture, left: float, bottom: float) -> Axes:
    """Draw placed paths at a place of the figure, in inches, with their stages above and an explanation below."""
    from matplotlib.patches import FancyBboxPatch

    axes = axes_in_inches(figure, left, bottom, picture.width, picture.height)
    half, colours = picture.box_width / 2, origin_colours(plan)
    for stage, x in enumerate(picture.columns):
        band = FancyBboxPatch((x - half, 0), 2 * half, picture.height, boxstyle=BAND_STYLE, fc=BAND, ec="none")
        band.set(zorder=0, clip_on=False)
        axes.add_patch(band)
        write(axes, x, -0.26, f"stage {stage}", fontsize=FONT_SIZE + 1)
    for route in sorted(picture.routes, key=lambda route: route.width):
        draw_route(axes, route, colours[route.hop.origin])
    for node, (centre, height) in picture.boxes.items():
        draw_box(axes, schedule, node, centre, (picture.box_width, height), colours.get(node))
    explain(axes, picture)
    return axes


def draw_route(axes: Axes, route: Route, colour: Any) -> None:
    """One line with its arrow head; a thin white edge keeps lines apart that cross."""
    from matplotlib.patches import PathPatch, Polygon

    (tip_x, tip_y), side = route.corners[-1], 1 if route.is_swap else -1
    length, half = ARROW_LENGTH + route.width / 2, (route.width + ARROW_WIDTH) / 2
    base_x, hop = tip_x + side * length, route.hop
    # The line ends inside the head, or a gap would show between them.
    curve = curve_through([*route.corners[:-1], (tip_x + side * 0.9 * length, tip_y)])
    points, name = route.width * POINTS_PER_INCH, f"hop {hop.origin} {hop.sender} {hop.receiver}"
    dashes = DASHES if route.is_swap else "solid"
    line: dict[str, Any] = {"fc": "none", "capstyle": "butt", "zorder": 1, "clip_on": False}
    axes.add_patch(PathPatch(curve, ec="white", lw=points + 1.2, **line))
    axes.add_patch(PathPatch(curve, ec=colour, lw=points, ls=dashes, gid=name, **line))
    head = [(base_x, tip_y - half), (tip_x, tip_y), (base_x, tip_y + half)]
    axes.add_patch(Polygon(head, fc=colour, lw=0, zorder=2, clip_on=False))


def curve_through(corners: Sequence[Point]) -> Curve:
    """A smooth line: level along each column that it passes, bent between columns."""
    from matplotlib.path import Path as Curve

    points, codes = [corners[0]], [Curve.MOVETO]
    for number, (here, there) in enumerate(pairwise(corners)):
        if number % 2:
            points.append(there)
            codes.append(Curve.LINETO)
        else:
            middle = (here[0] + there[0]) / 2
            points += [(middle, here[1]), (middle, there[1]), there]
            codes += [Curve.CURVE4] * 3
    return Curve(points, codes)


def explain(axes: Axes, picture: Picture) -> None:
    """What lines mean, below the paths."""
    from matplotlib.lines import Line2D

    most = max(picture.routes, key=lambda route: route.microbatches)
    step = most.width / most.microbatches * POINTS_PER_INCH
    handles = [Line2D([], [], color=DARK, lw=step, label="1 microbatch")]
    if most.microbatches > 1:
        label = f"{most.microbatches} microbatches"
        handles.append(Line2D([], [], color=DARK, lw=step * most.microbatches, label=label, solid_capstyle="butt"))
    if any(route.is_swap for route in picture.routes):
        handles.append(Line2D([], [], color=DARK, lw=2, ls=DASHES, label="back to a stage passed over (swap)"))
    legend = axes.legend(
        handles=handles, ncols=len(handles), fontsize=FONT_SIZE, frameon=False, handlelength=3, loc="upper center"
    )
    legend.set_bbox_to_anchor((picture.width / 2, picture.height + 0.12), axes.transData)
    text = "colour: the origin; the way back to it for the loss, and the gradient's, are not drawn"
    write(axes, picture.width / 2, picture.height + 0.58, text)


def write_title(figure: Figure, text: str) -> None:
    """A title at the top."""
    height = figure.get_size_inches()[1]
    figure.text(0.5, 1 - 0.26 / height, text, ha="center", va="center", fontsize=FONT_SIZE + 2.5)
