"""What the torch thread asks before it goes on: whether it may, and in which view."""

from __future__ import annotations

from typing import NoReturn

from skippipe.runtime.figures import Rows
from skippipe.survival.course import Course
from skippipe.survival.view import View
from skippipe.transport.inbox import Inbox, PeerLostError


class Pace:
    """A node's course as its torch thread goes along it. The inbox's condition guards what the network thread changes.

    All methods wait as long as must be, and raise ViewChangedError if the others have agreed on another view meanwhile,
    PeerLostError if nobody goes on.
    """

    def __init__(self, course: Course, inbox: Inbox) -> None:
        self.course, self.inbox = course, inbox

    def wait_for_view(self, seconds: float) -> View:
        """The next view that names this joiner; PeerLostError if there is none for so long."""
        with self.inbox.changed:
            self.inbox.changed.wait_for(lambda: self.course.newest or self.inbox.failure, seconds)
            self.inbox.check_failure()
            if not self.course.waiting:
                raise PeerLostError(f"nobody has let this node join for {seconds:.0f} s")
            return self.course.waiting[0]

    def wait_for_the_end(self) -> NoReturn:
        """Wait until the launcher ends this process, or the others can't be reached any more: PeerLostError."""
        with self.inbox.changed:
            self.inbox.changed.wait_for(lambda: self.inbox.failure is not None)
            raise self.inbox.error(self.inbox.failure)

    def begin(self, iteration: int) -> None:
        """Begin an iteration, as soon as that leaves room for a view that is being agreed on."""
        with self.inbox.changed:
            self.inbox.changed.wait_for(lambda: self.course.may_begin(iteration) or self.inbox.interrupted)
            self.check()
            self.course.begun = iteration

    def commit(self, iteration: int, figures: Rows) -> None:
        """Note that everyone's figures of an iteration are here; from then on it can't be redone."""
        with self.inbox.changed:
            self.inbox.changed.wait_for(lambda: not self.course.is_frozen or self.inbox.interrupted)
            self.check()
            self.course.commit(iteration, figures)

    def complete(self, committed: int, figures: Rows) -> None:
        """This joiner has got its state: that after an iteration with these figures."""
        with self.inbox.changed:
            self.inbox.changed.wait_for(lambda: not self.course.is_frozen or self.inbox.interrupted)
            self.check()
            self.course.complete(committed, figures)

    def check(self) -> None:
        """ViewChangedError or PeerLostError if the torch thread can't just go on."""
        self.inbox.check_failure()
        self.inbox.check()
