"""Where a node stands between iterations and views, and what it tells of that: apart from threads and sockets.

The nodes agree on a view before they go on in it. A takeover begins at once, wherever each node is, for which all hold
still first (`is_frozen`). A boundary view begins with an iteration that nobody has begun: every node says which one it
may still begin without it (`limit`: what it has begun), keeps to that until the view is decided, and the view begins
after all of these: agreeing takes a blink of an iteration, and whoever has joined is of use the sooner the better.
Of two boundary views that begin with the same iteration the later one holds: it has those too who asked meanwhile.
Nodes that move to another stage with it keep what they held until its first iteration is done everywhere: if somebody
is lost before, that iteration is dropped and begun again by those who are left, in the stages of before.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Self

from skippipe.survival.view import View

Rows = dict[int, list[float]]
"""What every node has told after an iteration, by node."""


@dataclass(frozen=True)
class Report:
    """What a member tells whoever proposes the next view."""

    committed: int
    """The last iteration of which everyone's figures are here."""
    figures: Rows
    """Those figures."""
    limit: int
    """The last iteration that this node may begin before the next view, if the change is not urgent."""
    is_frozen: bool
    """Whether it commits nothing before the next view."""
    has_state: bool
    """False of a joiner until its stage's weights have come."""
    suspects: tuple[int, ...] = ()
    """Nodes that this one can't reach, or that hang."""
    hung: tuple[int, ...] = ()
    """Those of them that say of themselves that they hang."""
    view: View | None = None
    """In which the iteration after the committed one is done, if that is not the newest view."""

    def to_bytes(self) -> bytes:
        """The report as JSON, and the view's bytes in a line of their own."""
        rows = [[node, *row] for node, row in self.figures.items()]
        known = [self.committed, rows, self.limit, self.is_frozen, self.has_state, self.suspects, self.hung]
        view = self.view.to_bytes() if self.view is not None else b""
        return json.dumps(known).encode() + b"\n" + view

    @classmethod
    def from_bytes(cls, data: bytes, nodes: int) -> Self:
        """What to_bytes wrote; ValueError for anything else."""
        first, _, view = data.partition(b"\n")
        try:
            committed, rows, limit, is_frozen, has_state, *named = json.loads(first)
            figures = {int(node): [float(figure) for figure in row] for node, *row in rows}
            suspected, hung = (tuple(int(node) for node in nodes) for nodes in named)
            committed, limit = int(committed), int(limit)
        except (TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"a report is malformed ({error})") from None
        running = View.from_bytes(view, nodes) if view else None
        return cls(committed, figures, limit, bool(is_frozen), bool(has_state), suspected, hung, running)


@dataclass
class Course:
    """One node's way through iterations and views. Whoever uses it from several threads guards it."""

    running: View | None
    """The view that iterations are done in; None of a joiner that is in none yet."""
    begun: int
    """The last iteration that was begun here, or the one before the first."""
    committed: int = -1
    figures: Rows = field(default_factory=dict)
    """Of the committed iteration, empty if it was committed before the run began here."""
    is_frozen: bool = False
    limit: int | None = None
    """The last iteration that may be begun before the next view is decided; None if nobody has asked."""
    has_state: bool = True
    waiting: list[View] = field(default_factory=list)
    """Views that are decided, and not taken up yet."""

    @property
    def newest(self) -> View | None:
        """The last view that was decided."""
        waiting = self.waiting
        return waiting[-1] if waiting else self.running

    def report(self, is_urgent: bool, suspects: Collection[int] = (), hung: Collection[int] = ()) -> Report:
        """Tell how far this node is, and keep to it until the next view: see Report."""
        self.is_frozen = self.is_frozen or is_urgent
        if self.limit is None:
            # What takes an iteration over is gone on in for it, even if this node has not begun it.
            chain = [self.running, *self.waiting]
            self.limit = max([self.begun, *(view.first_iteration for view in chain if view and view.way != "boundary")])
        view = self.view_of(self.committed + 1)
        other = view if self.is_frozen and view is not self.newest else None
        named = tuple(sorted(suspects)), tuple(sorted(hung))
        return Report(self.committed, self.figures, self.limit, self.is_frozen, self.has_state, *named, other)

    def view_of(self, iteration: int) -> View | None:
        """The view that an iteration is done in, as far as is decided."""
        chain = [*self.waiting[::-1], self.running]
        return next((view for view in chain if view is not None and view.first_iteration <= iteration), None)

    def may_begin(self, iteration: int) -> bool:
        """Whether an iteration can be begun already."""
        return self.limit is None or iteration <= self.limit

    def commit(self, iteration: int, figures: Rows) -> None:
        """Everyone's figures of an iteration are here; it can't be redone from now on."""
        assert not self.is_frozen
        self.committed, self.figures = iteration, figures

    def complete(self, committed: int, figures: Rows) -> None:
        """A joiner has got its stage's state after an iteration."""
        assert not self.is_frozen
        self.has_state, self.committed, self.figures = True, committed, figures

    def adopt(self, view: View) -> bool:
        """The next view is decided; False if this process must end: it was left out of the one in between.

        That may be if what it had said to join comes late. One that has no state yet begins with this view then, and
        also if it begins no later than the one that it joined with, in which nobody will have given it any.
        """
        is_next = self.newest is None or view.number == self.newest.number + 1
        if self.has_state and not is_next:
            return False
        entered = self.running or next(iter(self.waiting), None)
        is_sooner = entered is not None and view.first_iteration <= entered.first_iteration
        if not self.has_state and (is_sooner or not is_next):
            self.give_up()
        if self.newest is None:
            self.begun = view.first_iteration - 1
        self.waiting.append(view)
        self.is_frozen, self.limit = False, None
        if view.committed > self.committed:
            self.committed, self.figures = view.committed, {node: list(row) for node, row in view.figures.items()}
        return True

    def give_up(self) -> None:
        """A joiner without a state is in no view any more."""
        assert not self.has_state
        self.running, self.waiting = None, []
        self.is_frozen, self.limit = False, None

    def take_up(self, iteration: int) -> list[View]:
        """Go on in the last view that is due in an iteration, which is running or about to begin: those up to it.

        A boundary view that a takeover comes after is passed over: nobody has gone on in it, or the takeover begins
        with its first iteration, and is without those who joined with it, unless they have their state.
        """
        due = [
            place
            for place, view in enumerate(self.waiting, start=1)
            if view.way != "boundary" or view.first_iteration <= iteration
        ]
        count = max(due, default=0)
        # In this order: the network thread may look in between.
        views = self.waiting[:count]
        self.running = views[-1] if views else self.running
        self.waiting = self.waiting[count:]
        return views
