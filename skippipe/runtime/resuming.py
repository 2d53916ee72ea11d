"""How nodes go on from a checkpoint whose files lie on several machines: they agree on one, and get what they lack."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from skippipe.errors import NothingToResumeError, UserError
from skippipe.model.checkpoint import (
    Checkpoint,
    check_same_model,
    clean,
    done_iterations,
    stage_file,
    stage_name,
    write_durably,
)
from skippipe.model.checkpoint_meta import read_meta, stages_with
from skippipe.model.feedback import feedback_name
from skippipe.model.parts import Part, folder_beside, parts_in
from skippipe.runtime.catalogue import LISTED, Catalogue, Found
from skippipe.runtime.events import Resumed
from skippipe.runtime.going_on import warnings_of
from skippipe.runtime.gradients import Exchange
from skippipe.runtime.job import Job
from skippipe.transport.clocks import Clock
from skippipe.transport.collective import Identity, Outgoing
from skippipe.transport.fetching import PART_BYTES, Fetch
from skippipe.transport.links import Links
from skippipe.transport.message import Header, MessageKind
from skippipe.transport.preparation import Preparation
from skippipe.transport.sharing import Sharing, Tree

logger = logging.getLogger(__name__)

LISTING, FETCHED = (Identity(0, exchange) for exchange in (Exchange.CATALOGUE, Exchange.FETCHED))
FAREWELL_SECONDS = 10.0
QUESTION = torch.zeros(1, dtype=torch.uint8)


class Resumption:
    """What a node does before it knows which checkpoint the run goes on from. Its machine's first node has the disk."""

    def __init__(self, job: Job, tree: Tree, clock: Clock) -> None:
        assert job.resume is not None
        self.job = job
        self.path = job.resume
        self.tree = tree
        self.own_layers = job.config.model.layers_per_stage
        self.layers = len(job.plan.stages) * self.own_layers
        self.catalogue = Catalogue(self.layers, job.schedule.nodes)
        widths = {Exchange.CATALOGUE: self.catalogue.width, Exchange.FETCHED: 1}
        self.inbox = Preparation(clock, {exchange: tree.expected(width) for exchange, width in widths.items()})

    def run(self, links: Links) -> Checkpoint:
        """Agree on a checkpoint, and fetch what of it this machine's nodes need and has not.

        NothingToResumeError if all nodes find that there is none; UserError if a file can't be read or written.
        """
        parts = parts_in(self.path, LISTED) if self.job.endpoint.first_here else []
        found = self.agree(parts, links)
        folder = folder_beside(self.path, found.iteration)
        names = self.lacking(found, parts, folder) if self.job.endpoint.first_here else []
        for name in names:
            self.fetch(found, name, folder, links)
        self.wait_for_all(folder, links)
        kept = self.kept(found, self.job.node)
        checkpoint = Checkpoint(folder, read_meta(stage_file(folder, kept[0])))
        check_same_model(checkpoint, self.job.config, len(self.job.plan.stages), self.job.prepared.vocabulary)
        if self.job.endpoint.first_here:
            size = sum((folder / name).stat().st_size for name in names)
            warnings = warnings_of(checkpoint, self.job.config, self.job.prepared, len(self.job.plan.stages[0]))
            self.job.endpoint.report(Resumed(str(folder), len(names), size, tuple(warnings)))
        return checkpoint

    def agree(self, parts: list[Part], links: Links) -> Found:
        """Tell what is here, and choose as all others do."""
        sharing = Sharing(self.tree, self.catalogue.row(parts, done_iterations(self.path.absolute())))
        links.run(sharing, LISTING)
        try:
            found = self.catalogue.choose(dict(zip(self.tree.members, sharing.table.tolist(), strict=True)))
            if found.iteration >= self.job.config.iterations:
                raise NothingToResumeError(
                    f"--resume: {found.iteration} iterations are done already; add iterations={2 * found.iteration}"
                )
        except NothingToResumeError:
            # The others must have what this node tells before it ends.
            links.part()
            links.drain(FAREWELL_SECONDS)
            links.close()
            raise
        return found

    def kept(self, found: Found, node: int) -> list[int]:
        """Stages of the checkpoint that hold what a node's stage has."""
        return stages_with(self.job.plan.stage_of()[node], self.own_layers, self.layers // found.stages, found.stages)

    def lacking(self, found: Found, parts: list[Part], folder: Path) -> list[str]:
        """Files that this machine's nodes need, as far as they are not here; UserError if others lie in their place."""
        for part in parts:
            if part.folder.absolute() == folder.absolute() and part.meta.identity != found.identity:
                raise UserError(
                    f"{folder}: of another run than the checkpoint that the others go on from; move it away"
                )
        local, config = self.job.endpoint.local, self.job.config
        stages = {stage for node in local for stage in self.kept(found, node)}
        names = [*map(stage_name, sorted(stages))]
        if config.compression.sync != "fp32":
            names += [name for name in map(feedback_name, local) if name in found.holders]
        return [name for name in names if self.job.node not in found.holders[name]]

    def fetch(self, found: Found, name: str, folder: Path, links: Links) -> None:
        """Get a file from a node of another machine; others may ask for files of this one meanwhile."""
        number, (holder, size) = self.catalogue.names.index(name), found.holder(name, self.job.node)
        logger.info("getting %s of iteration %d from node %d: %d bytes", name, found.iteration, holder, size)

        def write(path: Path) -> None:
            fetch = Fetch(number, holder, size)
            with path.open("wb") as file:
                while not fetch.done:
                    questions = [Outgoing(holder, MessageKind.ASK, part, QUESTION) for part in fetch.ask()]
                    links.post(Identity(0, number), questions, 0.0)
                    header, data = self.inbox.take_parcel()
                    if header.kind is MessageKind.ASK:
                        self.answer(header, folder, links)
                    else:
                        fetch.take(header, data)
                        file.write(data.numpy().data)

        try:
            folder.mkdir(parents=True, exist_ok=True)
            clean(folder.parent, [name])
            write_durably(folder / name, write)
        except OSError as error:
            raise UserError(f"{folder / name}: can't be written ({error.strerror})") from None

    def wait_for_all(self, folder: Path, links: Links) -> None:
        """Answer the others until all of them have what they need."""
        barrier = Sharing(self.tree, [0.0])
        links.post(FETCHED, barrier.begin(), 0.0)
        while not barrier.done:
            header, tensor = self.inbox.take_next(FETCHED)
            if header.kind is MessageKind.ASK:
                self.answer(header, folder, links)
            else:
                links.post(FETCHED, barrier.receive(header, tensor), 0.0)

    def answer(self, header: Header, folder: Path, links: Links) -> None:
        """Send a part of a file that another node asks for."""
        file = folder / self.catalogue.names[header.microbatch]
        try:
            with file.open("rb") as opened:
                opened.seek(PART_BYTES * header.part)
                data = bytearray(opened.read(PART_BYTES))
        except OSError as error:
            raise UserError(f"{file}: can't be read ({error.strerror})") from None
        if not data:
            raise UserError(f"{file}: has become shorter while node {header.sender} reads it")
        part = Outgoing(header.sender, MessageKind.FILE, header.part, torch.frombuffer(data, dtype=torch.uint8))
        links.post(Identity(0, header.microbatch), [part], 0.0)
