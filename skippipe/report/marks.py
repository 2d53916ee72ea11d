"""What became of a run's nodes, drawn into its Gantt chart: deaths, takeovers, changes of view, and who came back."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from skippipe.report.drawing import DARK
from skippipe.report.measured import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TAKEN_OVER = "xxxx"
"""The pattern of tasks that heirs did."""
AWAY_STYLE: dict[str, Any] = {"facecolor": "0.87", "edgecolor": "none", "lw": 0}
LOST_STYLE: dict[str, Any] = {"marker": "X", "color": "crimson", "ms": 9, "mec": "white", "ls": "none"}
JOINED_STYLE: dict[str, Any] = {"marker": ">", "color": "seagreen", "ms": 9, "mec": "white", "ls": "none"}
CHANGE_STYLE: dict[str, Any] = {"color": DARK, "lw": 1.1, "ls": (0, (5, 2))}
CHANGE_POINTS = 11
"""Height of the line of text that each change of view has above the rows."""
LONGEST_REASON = 60


def draw_marks(axis: Axes, shown: Measured, rows: dict[int, float]) -> None:
    """A line across all rows and a text for each view, and on rows: crosses, arrows, grey while away, takeovers."""
    first_s, last_s = shown.begin_s, shown.end_s
    for node, from_s, to_s in shown.away:
        begin_s, end_s = first_s if from_s is None else from_s, last_s if to_s is None else to_s
        axis.barh(rows[node], end_s - begin_s, left=begin_s, height=0.9, zorder=0.5, **AWAY_STYLE)
    for place, change in enumerate(reversed(shown.changes)):
        axis.axvline(change.at_s, zorder=3, **CHANGE_STYLE)
        text = change.text if len(change.text) <= LONGEST_REASON else f"{change.text[: LONGEST_REASON - 1]}…"
        # Left of its line if there is more room.
        side, sign = ("left", 1) if 2 * change.at_s < last_s else ("right", -1)
        axis.annotate(
            text,
            (change.at_s, 1),
            (3 * sign, 3 + CHANGE_POINTS * place),
            xycoords=axis.get_xaxis_transform(),
            textcoords="offset points",
            ha=side,
            fontsize=8.5,
            color=DARK,
        )
        for node in change.lost:
            axis.plot(change.noticed_s, rows[node], zorder=4, clip_on=False, **LOST_STYLE)
        for node in change.joined:
            axis.plot(change.at_s, rows[node], zorder=4, clip_on=False, **JOINED_STYLE)
    for node, text in takeovers(shown).items():
        axis.annotate(
            text,
            (1, rows[node]),
            (4, 0),
            xycoords=axis.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=DARK,
            annotation_clip=False,
        )


def takeovers(shown: Measured) -> dict[int, str]:
    """By heir, what it took over from whom: microbatches by their numbers, or how many if there are more than a few."""
    given: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for span, former in shown.taken_over.items():
        assert span.microbatch is not None
        given[span.node, former].add(span.microbatch)
    texts: defaultdict[int, list[str]] = defaultdict(list)
    for (heir, former), microbatches in sorted(given.items()):
        texts[heir].append(f"{', '.join(map(str, sorted(microbatches)))} of node {former}")
    return {heir: f"+ {'; '.join(parts)}" for heir, parts in texts.items()}


def mark_handles(shown: Measured) -> list[Any]:
    """What the marks mean, for the legend: those that there are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if shown.taken_over:
        style: dict[str, Any] = {"facecolor": "0.35", "edgecolor": "white", "hatch": TAKEN_OVER, "lw": 0}
        handles.append(Patch(label="taken over (+ microbatches at the right)", **style))
    if shown.changes:
        handles.append(Line2D([], [], label="change of view", **CHANGE_STYLE))
    if any(change.lost for change in shown.changes):
        handles.append(Line2D([], [], label="lost: noticed here", **LOST_STYLE))
    if any(change.joined for change in shown.changes):
        handles.append(Line2D([], [], label="joins", **JOINED_STYLE))
    if shown.away:
        handles.append(Patch(label="away", **AWAY_STYLE))
    return handles
