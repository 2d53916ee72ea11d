"""Iterations of a run as they were: what every node did when, who was lost or came back, and who took over what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from skippipe.errors import UserError
from skippipe.report.run_folder import read_config
from skippipe.report.timeline import TIMELINE, read_spans
from skippipe.report.views import TAKEOVER, RunView, read_views, view_of
from skippipe.schedule import Costs
from skippipe.schedule.plan import Task
from skippipe.schedule.timeline import KIND_NAMES, LINK, Span, Timeline

KINDS = {name: kind for kind, name in KIND_NAMES.items()}


@dataclass(frozen=True)
class Change:
    """Another view; times are seconds from the first forward of the first iteration that is shown."""

    text: str
    """Its number and reason."""
    at_s: float
    """When tasks went on."""
    noticed_s: float
    """When the first loss was noticed, or a joiner asked; at_s if that is not known."""
    lost: tuple[int, ...]
    joined: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """What there is to show of a run's iterations."""

    timeline: Timeline
    """Spans of those who got to the end of each iteration; what the lost had done in it is lost with them."""
    name: str
    """Such as "measured (3 to 5)"."""
    iterations: int
    """How many they are."""
    changes: tuple[Change, ...] = ()
    """In the order of time."""
    absent: frozenset[int] = frozenset()
    """Nodes that are no members when the first iteration begins."""
    taken_over: dict[Span, int] = field(default_factory=dict)
    """Tasks that heirs did, and whose tasks they were."""

    @property
    def title(self) -> str:
        """Name and times."""
        timeline = self.timeline
        if self.iterations > 1:
            return f"{self.name}: {timeline.step_s:.1f} s"
        return f"{self.name}: iteration {timeline.iteration_s:.1f} s, step {timeline.step_s:.1f} s"

    @property
    def away(self) -> list[tuple[int, float | None, float | None]]:
        """Nodes, and from when to when each was no member; None is the beginning, or the end, of what is shown."""
        since: dict[int, float | None] = dict.fromkeys(sorted(self.absent))
        ended: list[tuple[int, float | None, float | None]] = []
        for change in self.changes:
            since.update(dict.fromkeys(change.lost, change.noticed_s))
            ended += [(node, since.pop(node), change.at_s) for node in change.joined if node in since]
        return ended + [(node, begin, None) for node, begin in since.items()]

    @property
    def begin_s(self) -> float:
        """The first moment that is shown."""
        return min([0.0, *(change.noticed_s for change in self.changes if change.lost)])

    @property
    def end_s(self) -> float:
        """The last moment that is shown."""
        return max([self.timeline.step_s, *(change.at_s for change in self.changes)])


def measured_run(folder: Path, costs: Costs, first: int, last: int) -> Measured:
    """The iterations from first to last of a run's folder, in seconds of the schedule.

    Raises UserError for a file or an iteration that is not there, or a line that can't be read.
    """
    by_iteration, views, config = read_spans(folder), read_views(folder), read_config(folder)
    for iteration in range(first, last + 1):
        if iteration not in by_iteration:
            hint = what_there_is(sorted(by_iteration), iteration, config.timeline_every)
            raise UserError(f"{folder / TIMELINE} has no iteration {iteration}{hint}")
    begin = min(span.start_s for span in by_iteration[first])
    spans: list[Span] = []
    taken_over: dict[Span, int] = {}
    for iteration in range(first, last + 1):
        moved = [
            replace(span, start_s=span.start_s - begin, end_s=span.end_s - begin) for span in by_iteration[iteration]
        ]
        view = view_of(views, iteration)
        check(moved, view, folder)
        spans += [*moved, *links(moved, view, costs)]
        taken_over |= inherited(moved, view, views)
    scale = config.emulation.time_scale if config.emulation.enabled else 1.0
    changes, members = changes_in(views, first, last, scale, begin)
    nodes = {node for view in views for node in view.members}
    name = f"measured ({first})" if first == last else f"measured ({first} to {last})"
    absent, count = frozenset(nodes - members), last - first + 1
    return Measured(Timeline(tuple(spans)), name, count, changes, absent, taken_over)


def what_there_is(written: Sequence[int], missing: int, every: int) -> str:
    """What follows on the line that an iteration is missing among those that were written, in their order."""
    if not written:
        return "; it is empty"
    if every == 1:
        return f"; it has {written[0]} to {written[-1]}"
    near = [*[i for i in written if i < missing][-1:], *[i for i in written if i > missing][:1]]
    verb = "are" if len(near) > 1 else "is"
    return f": timeline_every is {every}; the nearest that it has {verb} {' and '.join(map(str, near))}"


def check(spans: Iterable[Span], view: RunView, folder: Path) -> None:
    """UserError if a node ran what the view of the iteration does not ask of it."""
    for span in spans:
        m = span.microbatch
        if m is not None and (m >= len(view.paths) or span.node not in view.paths[m]):
            raise UserError(f"{folder}: node {span.node} ran {span.name}, which view {view.number} does not ask of it")


def links(spans: Iterable[Span], view: RunView, costs: Costs) -> list[Span]:
    """Messages between the tasks of an iteration.

    Each lasts from the sender's end for its emulated time, at most until the receiver starts on what it brought.
    """
    plan, by_step = view.plan, {}
    for span in spans:
        if (m := span.microbatch) is not None:
            by_step[m, plan.step_of(Task(KINDS[span.kind], m), span.node)] = span
    found = []
    for (m, step), span in by_step.items():
        following = by_step.get((m, step + 1))
        if following is not None:
            arrival = span.end_s + float(costs.hop_s[span.node, following.node])
            found.append(Span(span.node, LINK, m, span.end_s, max(span.end_s, min(arrival, following.start_s))))
    return found


def inherited(spans: Iterable[Span], view: RunView, views: Sequence[RunView]) -> dict[Span, int]:
    """Tasks that heirs did, and who had them in the last view before those of takeovers."""
    planned = next(other for other in reversed(views[: view.number + 1]) if other.has_begun and other.way != TAKEOVER)
    former = {
        (m, node): other
        for m, (path, earlier) in enumerate(zip(view.paths, planned.paths, strict=True))
        for node, other in zip(path, earlier, strict=False)
        if node != other
    }
    return {
        span: former[span.microbatch, span.node]
        for span in spans
        if span.microbatch is not None and (span.microbatch, span.node) in former
    }


def changes_in(
    views: Sequence[RunView], first: int, last: int, scale: float, begin: float
) -> tuple[tuple[Change, ...], frozenset[int]]:
    """Views that began in these iterations, and the members before them."""
    begun = [view for view in views if view.has_begun]
    new = [view for view in begun[1:] if first <= view.iteration <= last]
    before = next((view for view in reversed(begun) if view.iteration <= first and view not in new), begun[0])
    members = members_before = frozenset(before.members)
    changes = []
    for view in new:
        assert view.resumed_s is not None
        at_s = view.resumed_s / scale - begin
        noticed_s = at_s if view.detected_s is None else min(at_s, view.detected_s / scale - begin)
        lost, joined = (
            tuple(sorted(nodes)) for nodes in (members.difference(view.members), set(view.members) - members)
        )
        changes.append(Change(f"view {view.number}: {view.reason}", at_s, noticed_s, lost, joined))
        members = frozenset(view.members)
    return tuple(changes), members_before
