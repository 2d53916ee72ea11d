"""Emulated time: how long hops, tasks and syncs take on the schedule's network, and sleeping until they are over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from skippipe.config import EmulationConfig
from skippipe.schedule import Costs
from skippipe.schedule.plan import Kind
from skippipe.transport.clocks import Clock


@dataclass(frozen=True)
class Emulation:
    """One node's costs, in real seconds (multiplied by time_scale); all zero if emulation is off."""

    task_s: dict[Kind, float]
    gap_s: float
    hop_from_s: dict[int, float]
    """Hop from each node to this one."""
    sync_s: float

    @classmethod
    def of(cls, config: EmulationConfig, costs: Costs, node: int, sync_s: float) -> Emulation:
        """The costs of a node."""
        scale = config.time_scale if config.enabled else 0.0
        return cls(
            task_s={
                Kind.FORWARD: scale * float(costs.forward_s[node]),
                Kind.LOSS: scale * float(costs.loss_s[node]),
                Kind.BACKWARD: scale * float(costs.backward_s[node]),
            },
            gap_s=scale * costs.task_gap_s,
            hop_from_s={other: scale * float(hop) for other, hop in enumerate(costs.hop_s[:, node])},
            sync_s=scale * sync_s,
        )


class RunClock:
    """Monotonic seconds for waiting, and the run's time for what nodes of several machines compare."""

    def __init__(self, clock: Clock, offset: Callable[[], float]) -> None:
        """`offset` is how far the run's time is ahead of the clock's wire seconds."""
        self.clock = clock
        self.offset = offset

    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock.now()

    def shared(self, monotonic: float) -> float:
        """The run's time at a monotonic time."""
        return self.clock.wire(monotonic) + self.offset()

    def local(self, shared: float) -> float:
        """Monotonic seconds at a time of the run."""
        return self.clock.from_wire(shared - self.offset())


def sleep_until(deadline: float) -> None:
    """Sleep until a monotonic time."""
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(left)
