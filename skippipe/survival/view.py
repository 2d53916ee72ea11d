"""A view: who is a member from one change of members to the next, their plan, and how they went on; its bytes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from skippipe.errors import UserError, shown
from skippipe.fields import convert
from skippipe.schedule.file import (
    MOST_NODES,
    listing,
    node_key,
    plan_document,
    plan_from,
    refuse_constant,
    section,
    text_field,
    whole_number,
)
from skippipe.schedule.plan import Plan
from skippipe.survival.succession import check_living

Way = Literal["start", "takeover", "redo", "boundary"]
"""How a view goes on from the one before.

start: it is the first. takeover: in the middle of an iteration, heirs do the tasks of the lost. redo: an iteration is
dropped and begun again. boundary: between two iterations.
"""
FIRST_RESTORED = "stage 0 restored by"
"""In the reason of a redo: before the node that has the first stage from a checkpoint, since nobody else has it."""
MOST_REASON = 100_000
"""Characters of a reason; it may name every node."""
MOST_FIGURES = 100
"""That a node shares after an iteration."""
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""Figures that JSON has no numbers for; a poisoned iteration has them."""


@dataclass(frozen=True)
class View:
    """One view of a run, as a majority of the members of the view before accepted it."""

    number: int
    """Counts up from 0, the view that the run begins with."""
    first_iteration: int
    """The first that is done with this plan; of a takeover, the one that was running."""
    way: Way
    reason: str
    """What changed, such as "lost: 12"; one line."""
    plan: Plan
    committed: int
    """The last iteration that is done everywhere, or can be finished from `figures`; -1 before the first."""
    figures: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """What every node shared of the committed iteration, node by node; empty if all have stepped already."""
    lost: tuple[int, ...] = ()
    """Members of the view before that this one is without, ascending."""
    joined: tuple[int, ...] = ()
    """Members that the iteration before was done without, ascending."""
    donors: dict[int, int] = field(default_factory=dict)
    """Who hands its stage's state, as it is when the view begins, to each member that did not hold that stage."""
    restored: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """For each member that restores a stage that nobody holds any more: members with neighbouring stages.

    Of a redo: nobody, since it is the first stage, and the member knows all else.
    """
    fallback: Plan | None = None
    """Whose stages members hold until the view's first iteration is done, if some of them move between stages."""
    detected_s: float | None = None
    """The run's time at which somebody noticed, in seconds."""
    resumed_s: float | None = None
    """The run's time at which tasks went on, in seconds."""

    @property
    def members(self) -> tuple[int, ...]:
        """Every node that has a stage, ascending."""
        return tuple(sorted(node for stage in self.plan.stages for node in stage))

    @property
    def moved(self) -> tuple[int, ...]:
        """Members that were in the view before, in another stage, ascending."""
        return tuple(sorted({*self.donors, *self.restored} - set(self.joined)))

    def document(self) -> dict[str, Any]:
        """The view's line of runs/<name>/views.jsonl, as plain data."""
        return {
            "number": self.number,
            "iteration": self.first_iteration,
            "members": list(self.members),
            "stages": [list(stage) for stage in self.plan.stages],
            "paths": [list(path) for path in self.plan.paths],
            "reason": self.reason,
            "way": self.way,
            "detected_s": self.detected_s,
            "resumed_s": self.resumed_s,
            "expected_step_s": self.plan.expected_step_s,
        }

    def to_bytes(self) -> bytes:
        """The view as JSON; from_bytes gives the same view."""
        document = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        document["plan"] = plan_document(self.plan)
        document["fallback"] = None if self.fallback is None else plan_document(self.fallback)
        document["donors"] = {str(node): donor for node, donor in sorted(self.donors.items())}
        document["restored"] = {str(node): list(near) for node, near in sorted(self.restored.items())}
        document["figures"] = {
            str(node): [value if math.isfinite(value) else str(value) for value in row]
            for node, row in sorted(self.figures.items())
        }
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, nodes: int) -> Self:
        """Read what another node proposes; ValueError says what is malformed, or why its plan can't be run.

        `nodes` is how many the run was begun with: members have numbers below it.
        """
        try:
            document = json.loads(data.decode(), parse_constant=refuse_constant, parse_float=finite)
        except RecursionError:
            raise ValueError("nested too deeply to be a view") from None
        values = section(document, "view", {entry.name for entry in fields(cls)})
        view = cls(
            number=whole_number(values["number"], "number"),
            first_iteration=whole_number(values["first_iteration"], "first_iteration"),
            way=convert(values["way"], Way, "way"),
            reason=text_field(values["reason"], "reason"),
            plan=plan_from(values["plan"], "plan"),
            committed=whole_number(values["committed"], "committed", smallest=-1),
            figures=figures_from(values["figures"], nodes),
            lost=nodes_from(values["lost"], "lost", nodes),
            joined=nodes_from(values["joined"], "joined", nodes),
            donors=donors_from(values["donors"], nodes),
            restored=restored_from(values["restored"], nodes),
            fallback=None if values["fallback"] is None else plan_from(values["fallback"], "fallback"),
            detected_s=time_from(values["detected_s"], "detected_s"),
            resumed_s=time_from(values["resumed_s"], "resumed_s"),
        )
        view.check(nodes)
        return view

    def check(self, nodes: int) -> None:
        """Raise UserError if the view does not agree with itself or its plan can't be run."""
        if len(self.reason) > MOST_REASON or not self.reason.isprintable():
            raise UserError(f"reason must be one line of at most {MOST_REASON} characters")
        if self.committed >= self.first_iteration:
            raise UserError(f"iteration {self.committed} is committed, and {self.first_iteration} still to be done")
        members = set(self.members)
        if present := members.intersection(self.lost):
            raise UserError(f"node {min(present)} is lost and a member")
        if absent := set(self.joined) - members:
            raise UserError(f"node {min(absent)} has joined and is no member")
        self.check_donors(members)
        check_living(self.plan, nodes)
        if self.fallback is not None:
            check_living(self.fallback, nodes)

    def check_donors(self, members: set[int]) -> None:
        """Raise UserError if donors can't hand over anything, or nobody knows what to go back to."""
        is_boundary = self.way == "boundary"
        if not is_boundary and (self.donors or (self.restored and self.way != "redo")):
            raise UserError(f"donors of a view whose way is {self.way}")
        if wrong := [node for node, near in self.restored.items() if bool(near) != is_boundary]:
            raise UserError(f"restored of node {wrong[0]} must name nodes if, and only if, the view's way is boundary")
        if twice := self.donors.keys() & self.restored.keys():
            raise UserError(f"node {min(twice)} is given a stage's state and restores one")
        helpers = {node for near in self.restored.values() for node in near}
        for name, nodes in (
            ("donors", self.donors.keys() | self.donors.values()),
            ("restored", self.restored.keys() | helpers),
        ):
            if strangers := nodes - members:
                raise UserError(f"{name} names node {min(strangers)}, which is no member")
        given = self.donors.keys() | self.restored.keys()
        if asked := (set(self.donors.values()) - self.restored.keys() | helpers) & set(self.joined):
            raise UserError(f"node {min(asked)} is asked for a state and has just joined")
        if without := set(self.joined) - given:
            raise UserError(f"donors has nobody for node {min(without)}, which has joined")
        if (self.fallback is None) != (not (self.moved and is_boundary)):
            raise UserError("fallback must be there if nodes move between stages, and only then")

    def check_same_work(self, newest: View | None, before: View | None) -> None:
        """Raise UserError if the plan has other microbatches or stages than the newest view.

        `before` is the view of the iteration before, if this node knows it: with its plan the fallback must agree.
        """
        if newest is None:
            return
        for name, ours, theirs in (
            ("microbatches", len(self.plan.paths), len(newest.plan.paths)),
            ("stages", len(self.plan.stages), len(newest.plan.stages)),
        ):
            if ours != theirs:
                raise UserError(f"the view's plan has {ours} {name}, the one before {theirs}")
        if self.fallback is not None and before is not None and self.fallback.paths != before.plan.paths:
            raise UserError("the view's fallback is not the plan of the view before")


def finite(text: str) -> float:
    """A number of a JSON text; one that is too large for a double is none."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"has the value {text[:40]}, which is too large")
    return value


def number_from(value: Any, where: str) -> float:
    """A finite number, whole or not."""
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not float:
        raise UserError(f"{where} must be a number, not {shown(value)}")
    return value


def time_from(value: Any, where: str) -> float | None:
    """A time, if it is known."""
    return None if value is None else number_from(value, where)


def nodes_from(value: Any, where: str, nodes: int) -> tuple[int, ...]:
    """Numbers of nodes, ascending, each once."""
    found = tuple(node_from(entry, where, nodes) for entry in listing(value, where, MOST_NODES))
    if list(found) != sorted(set(found)):
        raise UserError(f"{where} must name each node once, in ascending order")
    return found


def donors_from(value: Any, nodes: int) -> dict[int, int]:
    """A donor for each of some nodes."""
    donors = {}
    for key, donor in section(value, "donors", None).items():
        where = f"donors of node {key}"
        donors[node_from(node_key(key, "donors"), where, nodes)] = node_from(donor, where, nodes)
    return donors


def restored_from(value: Any, nodes: int) -> dict[int, tuple[int, ...]]:
    """Up to two neighbours of each of some nodes."""
    restored = {}
    for key, near in section(value, "restored", None).items():
        where = f"restored of node {key}"
        neighbours = tuple(node_from(entry, where, nodes) for entry in listing(near, where, 2))
        if len(set(neighbours)) != len(neighbours):
            raise UserError(f"{where} must name nodes once")
        restored[node_from(node_key(key, "restored"), where, nodes)] = neighbours
    return restored


def node_from(value: Any, where: str, nodes: int) -> int:
    """The number of one of the run's nodes."""
    node = whole_number(value, where)
    if node >= nodes:
        raise UserError(f"{where} names node {node}; nodes go from 0 to {nodes - 1}")
    return node


def figures_from(value: Any, nodes: int) -> dict[int, tuple[float, ...]]:
    """A row of figures for each node, all of the same width."""
    rows: dict[int, tuple[float, ...]] = {}
    for key, row in section(value, "figures", None).items():
        where = f"figures of node {key}"
        rows[node_from(node_key(key, "figures"), where, nodes)] = tuple(
            NOT_FINITE[entry] if isinstance(entry, str) and entry in NOT_FINITE else number_from(entry, where)
            for entry in listing(row, where, MOST_FIGURES)
        )
    if len({len(row) for row in rows.values()}) > 1:
        raise UserError("figures must have as many numbers for each node")
    return rows
