"""The stage that a node holds, what others get of it, and how the node comes to hold another one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from skippipe.errors import UserError
from skippipe.model.checkpoint import Checkpoint, load_stage
from skippipe.model.parts import newest_with
from skippipe.runtime.job import Job
from skippipe.runtime.shard import Shard
from skippipe.runtime.state import Given, Knowledge, awaited, earlier_members, handovers, mean_of_neighbours, restore
from skippipe.survival.view import View
from skippipe.transport.clocks import Clock
from skippipe.transport.collective import Expected, Identity
from skippipe.transport.links import Links

logger = logging.getLogger(__name__)


class Restored(NamedTuple):
    """Where a stage's state came from."""

    donor: int
    """The first node that sent something for it."""
    source: str
    """In words."""
    size: int
    """Bytes that others sent for it."""
    seconds: float
    """From when the last of them sent it until all of it was there."""


class Holding:
    """A node's stage through the views of a run. A view is taken up; then others get theirs; then this node its own."""

    def __init__(self, job: Job, index: int) -> None:
        """The node begins with a stage as it is drawn."""
        self.job = job
        self.shard = Shard.build(job, index)
        if job.config.compile:
            # Now: in the middle of an iteration all others would wait.
            self.shard.stage.warm_up(job.schedule.pipeline.samples_per_microbatch)
        self.former: Shard | None = None
        """What this node held before it moved to another stage, until the first iteration there is done."""
        self.handing: list[Given] = []
        """What others get before the iteration."""
        self.awaiting: list[Given] = []
        """What this node gets before the iteration, if its stage is another then."""

    def take_up(self, view: View, know: Callable[[], Knowledge], width: int) -> dict[int, Expected]:
        """Hold the stage that the view says, and keep what others get of the one before; what must come to this node.

        `know` tells what this node knows of the run, in which rows of figures have so many numbers (`width`).
        """
        node = self.job.node
        self.handing = [] if node in view.joined else self.for_others(view, know)
        self.change_stage(view.plan.stage_of()[node])
        self.awaiting = awaited(view, node, self.shard.optimizer, width)
        return {given.exchange: dict(given.handover.expected) for given in self.awaiting}

    def for_others(self, view: View, know: Callable[[], Knowledge]) -> list[Given]:
        """What others get of the stage that this node holds, as it is now."""
        helpers = {node for near in view.restored.values() for node in near}
        if self.job.node not in {*view.donors.values(), *helpers}:
            return []
        return handovers(view, self.job.node, self.shard.index, self.shard.optimizer, know())

    def change_stage(self, index: int) -> None:
        """Hold a stage: another one, or the one before, if this node has to go back."""
        if index == self.shard.index:
            return
        if self.former is not None and self.former.index == index:
            self.shard, self.former = self.former, None
        else:
            self.shard, self.former = Shard.build(self.job, index), self.shard
        logger.info("this node holds stage %d now", index)

    def hand_over(self, links: Links, view: View, iteration: int, now: float) -> None:
        """Send others what they get; `now` is in wire seconds."""
        for given in self.handing:
            links.run(given.handover, Identity(iteration, given.exchange, view.number), now)
        self.handing = []

    def receive(self, links: Links, view: View, iteration: int, clock: Clock) -> tuple[Knowledge, Restored]:
        """Get the state of the stage that this node has from now on: what came with it, and where from.

        Raises what Links.run raises.
        """
        sent, given = 0.0, self.awaiting
        for exchange, handover in given:
            sent = max(sent, links.run(handover, Identity(iteration, exchange, view.number)))
        self.awaiting = []
        known = Knowledge.from_tensor(given[0].handover.figures, earlier_members(view))
        if self.job.node in view.restored:
            source = self.restore_stage(view, given, known)
            logger.warning("stage %d is restored %s", self.shard.index, source)
        else:
            restore(self.shard.optimizer, given[0].handover.numbers, known.step)
            source = f"of node {given[0].handover.members[0]}"
        size = sum(handover.numbers.nbytes + handover.figures.nbytes for _, handover in given)
        donor = given[0].handover.members[0]
        return known, Restored(donor, source, size, max(0.0, clock.now() - clock.from_wire(sent)))

    def hand_on(self, links: Links, view: View, iteration: int, know: Callable[[], Knowledge], now: float) -> None:
        """Give other replicas the stage that this node has restored, if it has."""
        if self.job.node in view.restored:
            self.handing = self.for_others(view, know)
            self.hand_over(links, view, iteration, now)

    def restore_first(self) -> str:
        """Fill the first stage, which nobody holds any more, from a checkpoint: which; RuntimeError if it is gone."""
        checkpoint = newest_checkpoint(self.job, 0)
        if checkpoint is None:
            raise RuntimeError("no checkpoint that has stage 0 is here any more")
        load_stage(checkpoint, self.shard.stage, self.shard.optimizer)
        return of_checkpoint(checkpoint)

    def restore_stage(self, view: View, given: list[Given], known: Knowledge) -> str:
        """Fill a stage that nobody holds any more: from a checkpoint, or else from what its neighbours hold; which."""
        shard = self.shard
        checkpoint = newest_checkpoint(self.job, shard.index)
        if checkpoint is not None:
            load_stage(checkpoint, shard.stage, shard.optimizer)
            return of_checkpoint(checkpoint)
        numbers = mean_of_neighbours(view, given, known.figures)
        if numbers is None:
            return "as it was in the beginning, since it has no checkpoint and no neighbours"
        restore(shard.optimizer, numbers, step=0.0)
        stage_of = view.plan.stage_of()
        near = " and ".join(str(stage_of[handover.members[0]]) for _, handover in given)
        return f"as the mean of stage {near}, since it has no checkpoint"


def of_checkpoint(checkpoint: Checkpoint) -> str:
    """Where a stage's state came from, in words."""
    return f"of the checkpoint of iteration {checkpoint.meta.iteration}"


def newest_checkpoint(job: Job, stage: int) -> Checkpoint | None:
    """The newest one here that has what a stage needs: of the run, or else of the one that it goes on from.

    The other stages go on with newer weights anyway, so theirs need not be here.
    """
    before = job.checkpoint.folder if job.checkpoint else job.resume
    for path in (job.folder, *([before] if before else [])):
        try:
            if (checkpoint := newest_with(path, stage, job.config.model.layers_per_stage)) is not None:
                return checkpoint
        except UserError as error:
            logger.warning("%s", error)
    return None
