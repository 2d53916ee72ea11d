"""The faults of a soak: which come when, whom each strikes, and whether what was sampled meanwhile has grown."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

MOST_AT_ONCE = 4
LEAST_PAUSE = 0.1
"""Of the mean pause from fault to fault."""


class Fault(Enum):
    """What happens to nodes; its value is how results call it."""

    KILLED = "a process is killed (SIGKILL)"
    SEVERAL = "two to four are killed at once"
    PROPOSER = "the member that proposes the next view is killed"
    STARTING = "a process is killed, and the next one of its node while that joins"
    PAUSED = "a process stands still for a while (SIGSTOP, SIGCONT)"
    STOPPED = "a process stands still for good (SIGSTOP)"
    CUT = "all connections that a process has opened are cut"

    @property
    def is_survived(self) -> bool:
        """Whether the process lives on."""
        return self in (Fault.PAUSED, Fault.CUT)


@dataclass(frozen=True)
class Planned:
    """A fault that is to come."""

    fault: Fault
    after_s: float
    """Real seconds from the fault before."""


@dataclass(frozen=True)
class Standing:
    """How things are when a fault comes."""

    nodes: int
    members: frozenset[int]
    """Of the newest view."""
    living: frozenset[int]
    """Whose processes there are, but for those that stand still for good."""
    spared: frozenset[int]
    """Nodes that only faults strike which their processes survive: what these take is watched."""


def planned(count: int, pause_s: float, seed: int) -> list[Planned]:
    """So many faults, each kind equally often to one, after pauses of `pause_s` in the mean, at least a tenth of it."""
    chance = random.Random(seed)
    kinds: list[Fault] = []
    while len(kinds) < count:
        kinds += chance.sample(list(Fault), len(Fault))
    return [
        Planned(kind, pause_s * (LEAST_PAUSE + chance.expovariate(1 / (1 - LEAST_PAUSE)))) for kind in kinds[:count]
    ]


def planned_for(seconds: float, pause_s: float, seed: int) -> list[Planned]:
    """As many of those faults as come within so many real seconds, if none has to wait."""
    faults = planned(math.ceil(seconds / (LEAST_PAUSE * pause_s)), pause_s, seed)
    moments = itertools.accumulate(fault.after_s for fault in faults)
    return [fault for fault, moment in zip(faults, moments, strict=True) if moment <= seconds]


def victims(fault: Fault, chance: random.Random, now: Standing) -> tuple[int, ...]:
    """Whom a fault strikes; () if it has to wait, since a majority of all nodes would not be left, or nobody suits."""
    able = sorted(now.members & now.living)
    suited = able if fault.is_survived else [node for node in able if node not in now.spared]
    if fault is Fault.PROPOSER:
        suited = [node for node in suited if node == min(now.members)]
    count = chance.randint(2, MOST_AT_ONCE) if fault is Fault.SEVERAL else 1
    if len(suited) < count or 2 * (len(able) - count) <= now.nodes:
        return ()
    return tuple(chance.sample(suited, count))


def quarters(samples: Sequence[float]) -> tuple[float, float]:
    """The medians of the second and of the last quarter of what was sampled: the first one is still filling up."""
    quarter = len(samples) // 4
    return statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])


def gap_at(ended: Sequence[float], moment: float) -> float:
    """Seconds between the two ends of iterations that a moment lies between; 0 before the first or after the last."""
    before = max((end for end in ended if end <= moment), default=None)
    after = min((end for end in ended if end > moment), default=None)
    return 0.0 if before is None or after is None else after - before
