"""Emulated time: how long hops, tasks and syncs take on the schedule's network, and sleeping until they are over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skippipe.config import EmulationConfig
from skippipe.schedule import Costs
from skippipe.schedule.arrays import Floats
from skippipe.schedule.plan import Kind
from skippipe.transport.clocks import Clock


@dataclass(frozen=True)
class Emulation:
    """One node's costs, in real seconds (multiplied by time_scale); all zero if emulation is off."""

    enabled: bool
    task_s: dict[Kind, float]
    gap_s: float
    hop_from_s: dict[int, float]
    """Hop from each node to this one."""
    link_busy_s: Floats
    """How long a message to each node keeps the next one to the same node from leaving, (nodes,)."""
    uplink_busy_s: Floats
    """How long a message to each node keeps the next one to any node from leaving, (nodes,)."""
    queue_s: float
    """Longest that a message from anyone may wait for others."""
    sync_s: float

    @classmethod
    def of(cls, config: EmulationConfig, costs: Costs, node: int, sync_s: float, messages: int) -> Emulation:
        """The costs of a node; an iteration has so many messages."""
        scale = config.time_scale if config.enabled else 0.0
        arrays = costs.arrays
        return cls(
            enabled=config.enabled,
            link_busy_s=scale * arrays.link_busy_s[node],
            uplink_busy_s=scale * arrays.uplink_busy_s[node],
            queue_s=scale * messages * float(max(arrays.link_busy_s.max(), arrays.uplink_busy_s.max())),
            task_s={
                Kind.FORWARD: scale * float(costs.forward_s[node]),
                Kind.LOSS: scale * float(costs.loss_s[node]),
                Kind.BACKWARD: scale * float(costs.backward_s[node]),
            },
            gap_s=scale * costs.task_gap_s,
            hop_from_s={other: scale * float(hop) for other, hop in enumerate(costs.hop_s[:, node])},
            sync_s=scale * sync_s,
        )


class Outgoing:
    """When a node's messages leave: each waits for those before it as the costs say (costs.Queueing)."""

    def __init__(self, emulation: Emulation) -> None:
        self.emulation = emulation
        self.uplink_free = 0.0
        self.link_free = np.zeros_like(emulation.link_busy_s)

    def leave(self, receiver: int, ready: float) -> float:
        """When a message leaves that is ready at a monotonic time; in the order of sending."""
        sent = max(ready, self.uplink_free)
        self.uplink_free = sent + float(self.emulation.uplink_busy_s[receiver])
        sent = max(sent, float(self.link_free[receiver]))
        self.link_free[receiver] = sent + self.emulation.link_busy_s[receiver]
        return sent


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
