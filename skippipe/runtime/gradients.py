"""What nodes do together in an iteration: the sync of a stage's replicas, and the sharing of figures by all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum

from skippipe.model.gradient_codec import GradientCodec
from skippipe.model.optimizer import StageOptimizer
from skippipe.runtime.device import Device
from skippipe.runtime.emulation import Emulation, RunClock, sleep_until
from skippipe.schedule import Plan
from skippipe.transport.all_reduce import AllReduce, Exact, PartFormat, expected_parts
from skippipe.transport.collective import Expected, Identity
from skippipe.transport.links import Links
from skippipe.transport.message import HEADER, MessageKind
from skippipe.transport.sharing import Sharing, Tree


class Exchange(IntEnum):
    """What nodes do together, by its sequence in the iteration."""

    MEETING = 0
    """Before the first iteration."""
    GRADIENT = 1
    """Among a stage's replicas."""
    FIGURES = 2
    VALIDATION = 3
    """Hidden states from leader to leader."""
    PERPLEXITY = 4
    ENDS = 5
    """After the last iteration."""
    STATE = 6
    """From a replica to one that comes back or moves to its stage, before the iteration."""
    SECOND_STATE = 7
    """From the second neighbour to whoever restores a stage that is lost."""
    CATALOGUE = 8
    """Before the meeting, of a run that goes on from a checkpoint on several machines: what each of them has."""
    FETCHED = 9
    """When everyone has what it needs of that."""


class Group:
    """All nodes of the run, the replicas of this node's stage, and the leaders of the stages, their first replicas."""

    def __init__(
        self,
        plan: Plan,
        node: int,
        parameters: int,
        hidden: list[tuple[int, ...]],
        codec: GradientCodec | None = None,
        view: int = 0,
    ) -> None:
        """The node's stage has so many parameters; `hidden` are the shapes of validation's hidden states, if any.

        `codec` is how gradients are written, if not exactly; `view` is the number of the view whose plan this is.
        """
        self.node = node
        self.view = view
        self.replicas = next(stage for stage in plan.stages if node in stage)
        self.leaders = [replicas[0] for replicas in plan.stages if replicas]
        self.tree = Tree(sorted(plan.stage_of()), node)
        self.parameters = parameters
        self.codec = codec if len(self.replicas) > 1 else None
        self.hidden = hidden

    @property
    def form(self) -> PartFormat:
        """How parts of gradients are written."""
        return self.codec or Exact()

    @property
    def leads(self) -> bool:
        """Whether this node speaks for its stage."""
        return self.replicas[0] == self.node

    @property
    def around(self) -> tuple[int, int]:
        """The leaders of the stages before and after this leader's, round and round."""
        place = self.leaders.index(self.node)
        return self.leaders[place - 1], self.leaders[(place + 1) % len(self.leaders)]

    def peers(self) -> set[int]:
        """Nodes that this one sends to in what they do together."""
        found = {*self.replicas, *self.tree.neighbours}
        if self.hidden and self.leads:
            found.add(self.around[1])
        return found - {self.node}

    def expected(self, widths: dict[Exchange, int]) -> dict[int, Expected]:
        """What must come to this node in each exchange; `widths` are those of the rows that all nodes share."""
        found: dict[int, Expected] = {exchange: self.tree.expected(width) for exchange, width in widths.items()}
        found[Exchange.GRADIENT] = expected_parts(self.replicas, self.node, self.parameters, self.form)
        if self.hidden and self.leads and len(self.leaders) > 1:
            before = self.around[0]
            found[Exchange.VALIDATION] = {
                (MessageKind.HIDDEN, before, batch): shape for batch, shape in enumerate(self.hidden)
            }
        return found

    def sync(
        self,
        links: Links,
        iteration: int,
        optimizer: StageOptimizer,
        visits: int,
        last_backward: float,
        emulation: Emulation,
        clock: RunClock,
        device: Device,
    ) -> float:
        """Average the stage's gradient over its replicas and microbatches; the monotonic time when it is done.

        The emulated sync begins when the last replica's last backward is done (docs/architecture.md). The gradient must
        not change before the figures of this iteration are shared: what others still wait for may be a view of it.
        """
        buffer = device.download(optimizer.flat)()
        # Of few microbatches none may visit a stage.
        mean = AllReduce(self.replicas, self.node, buffer, max(1, visits), self.form)
        wire = clock.clock.wire(last_backward)
        latest = links.run(mean, Identity(iteration, Exchange.GRADIENT, self.view), wire)
        if buffer is not optimizer.flat:
            optimizer.flat.copy_(buffer)
        if latest > wire:
            # It lies in the past, whatever the clocks' offset is taken for: nobody waits for another's clock.
            last_backward = min(clock.clock.from_wire(latest), clock.now())
        done = last_backward + emulation.sync_s
        sleep_until(done)
        return max(done, clock.now())

    def share(self, links: Links, iteration: int, exchange: Exchange, figures: list[float]) -> dict[int, list[float]]:
        """Every node's figures, by node; all nodes must call it with as many."""
        sharing = Sharing(self.tree, figures)
        links.run(sharing, Identity(iteration, exchange, self.view))
        return dict(zip(self.tree.members, sharing.table.tolist(), strict=True))


def largest_message(expected: Mapping[int, Expected]) -> int:
    """Bytes of the largest frame that the exchanges bring, if none is compressed."""
    shapes = [shape for messages in expected.values() for shape in messages.values()]
    return HEADER.size + 8 * max(map(math.prod, shapes), default=0)
