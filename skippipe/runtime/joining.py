"""How a node's process gets into a run that goes on: it waits for a view, and for the state of a stage."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from skippipe.runtime.events import Joining, NodeBack
from skippipe.runtime.holding import Restored
from skippipe.runtime.member import Member
from skippipe.runtime.processes import SIGNS_IN_SILENCE
from skippipe.survival.view import View
from skippipe.transport.inbox import PeerLostError, ViewChangedError

logger = logging.getLogger(__name__)


def join(member: Member) -> None:
    """Get a process into the run, with the state of a replica of its stage; PeerLostError if nobody lets it in."""
    with signs_of_life(member):
        restored = get_in(member)
    if member.shard.codec is not None:
        logger.info("what this node's compressed syncs had left out is lost with its former process")
    source, size, seconds = restored.source, restored.size, restored.seconds
    member.job.endpoint.report(NodeBack(member.job.node, member.first, member.shard.index, source, size, seconds))


@contextlib.contextmanager
def signs_of_life(member: Member) -> Iterator[None]:
    """Let the launcher know that this process lives while it joins: nobody else waits for it."""
    endpoint, loop, is_over = member.job.endpoint, member.links.loop, threading.Event()

    def give() -> None:
        if not is_over.is_set():
            endpoint.report(Joining(endpoint.node))
            loop.call_later(endpoint.peers.silence_seconds / SIGNS_IN_SILENCE, give)

    loop.call_soon_threadsafe(give)
    try:
        yield
    finally:
        is_over.set()


def get_in(member: Member) -> Restored:
    """Wait for a view that lets this process in and lasts until its state is there."""
    member.work.wait("a view to join")
    member.survivors.start()
    while True:
        try:
            return enter(member)
        except ViewChangedError:
            # Somebody was lost before the state was here, or others join with it in a later view.
            member.work.wait("another view to join")


def enter(member: Member) -> Restored:
    """Begin with the next view that names this node: where its state came from.

    PeerLostError if nobody lets it in, ViewChangedError if the others go on without it, or in a later view.
    """
    view = wait_for_view(member)
    member.links.joined = True
    if view.first_iteration >= member.job.config.iterations:
        logger.info("the run ends before iteration %d, in which this node would join", view.first_iteration)
        member.pace.wait_for_the_end()
    if not member.job.endpoint.with_first_node and 0 in view.members:
        # Its clock is the run's time.
        member.links.connect([0])
    with member.inbox.changed:
        waiting = member.survivors.course.waiting
        if not waiting:
            raise ViewChangedError
        # Whatever was taken up before has never been gone on in.
        member.begin_at(waiting[0].first_iteration)
        first = member.inbox.iteration = member.first
        member.take_up(first)
    known, restored = member.receive_state(first)
    member.run, member.drops.in_a_row, member.drops.proven = known.run, known.dropped_in_a_row, known.proven
    member.links.learn_axis(restored.donor, known.axis_s)
    member.pace.complete(first - 1, known.figures)
    member.microbatches.join(first, known.places)
    try:
        member.hand_on(first)
    except ViewChangedError:
        # It has its state, so it is in that view too, and takes it up before it begins.
        logger.info("others need not be given stage %d any more", member.shard.index)
    return restored


def wait_for_view(member: Member) -> View:
    """The next view that names this joiner; PeerLostError says why there is none."""
    try:
        return member.pace.wait_for_view(member.job.config.peers.connect_seconds)
    except PeerLostError as error:
        why = member.survivors.not_reached
        raise PeerLostError(f"{error} ({why})" if why else str(error)) from None
