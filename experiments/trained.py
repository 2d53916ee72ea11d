"""What a training under churn has come to: when nodes were to die, when iterations ended, and the losses."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

AVERAGED = 5
"""The loss after an iteration is the mean of the last so many iterations' losses."""


class Way(Enum):
    """What follows on a death; its value is how results call it."""

    OURS = "takeover by heirs (ours)"
    REDO = "discard and redo"
    RESTART = "restart from the last checkpoint"


@dataclass
class Life:
    """A run from its launcher's start to its end, in monotonic seconds."""

    began: float
    ready: float | None = None
    """When all nodes had met."""
    over: float = 0.0
    ended: dict[int, float] = field(default_factory=dict)
    """When each of its iterations had."""

    @property
    def trained_from(self) -> float:
        """When it began to train; its end if it never did."""
        return self.over if self.ready is None else self.ready


@dataclass(frozen=True)
class Trained:
    """What became of a training; seconds from when its nodes had first met."""

    way: str
    rate: float
    wanted: int
    """Iterations that it was to do."""
    real_s: float
    emulated_s: float
    """Of the schedule: real seconds of training over the time scale, and of each later start the real ones."""
    losses: list[float | None]
    """By iteration; None of those that are not done."""
    ended_real_s: list[float | None]
    """When each iteration first ended."""
    ended_emulated_s: list[float | None]
    deaths: int
    """That met a living process."""
    starts: int
    """Of the whole run, the first one counted in."""
    stuck: int
    """How often it ended no iteration for STUCK_S."""
    longest_gap_s: float
    """Between ends of iterations, in real seconds."""
    counts: dict[str, float]
    """Of the summaries of the starts that wrote one."""
    members: float | None
    """Nodes that did an iteration, mean over those of which it is known."""
    replayed: int
    """Iterations that were trained again in one process along the views of its runs."""
    replay_difference: float
    """Largest relative difference of their losses from what that gave."""
    said: list[str]
    """The last words of starts that ended of their own and too early."""

    @property
    def done(self) -> int:
        """Iterations that it has done."""
        return sum(second is not None for second in self.ended_real_s)

    @property
    def is_over(self) -> bool:
        """Whether it has done all of them."""
        return self.done == self.wanted

    @property
    def last_loss(self) -> float | None:
        """The loss at the end."""
        return self.loss_after(self.wanted - 1)

    def loss_after(self, iteration: int) -> float | None:
        """The mean of the last losses; None if one of them is not known."""
        return mean_of_known(self.losses[max(0, iteration + 1 - AVERAGED) : iteration + 1])

    def iteration_at(self, loss: float) -> int | None:
        """The first iteration after which the loss is as low as this."""
        after = ((iteration, self.loss_after(iteration)) for iteration in range(AVERAGED - 1, self.wanted))
        return next((iteration for iteration, own in after if own is not None and own <= loss), None)

    def seconds_to(self, loss: float, is_real: bool = False) -> float | None:
        """Emulated seconds until the loss was first as low as this, or real ones; None if it never was."""
        iteration = self.iteration_at(loss)
        seconds = self.ended_real_s if is_real else self.ended_emulated_s
        return seconds[iteration] if iteration is not None else None


def mean_of_known(losses: Sequence[float | None]) -> float | None:
    """Their mean; None if one is not known, or there are none."""
    known = [loss for loss in losses if loss is not None]
    return statistics.fmean(known) if known and len(known) == len(losses) else None


def deaths(rate: float, nodes: int, attempt: int, seed: int) -> list[tuple[float, int]]:
    """Who dies in an iteration, the attempt-th that is begun, and when: (part of an expected step, node), in order.

    The same numbers are drawn for every rate, so that whoever dies at one dies at every higher one, at the same moment.
    """
    generator = np.random.default_rng([seed, attempt])
    chances, moments = generator.random(nodes), generator.random(nodes)
    return sorted((float(moments[node]), node) for node in range(nodes) if chances[node] < rate)


def emulated_seconds(lives: Sequence[Life], place: int, moment: float, time_scale: float) -> float:
    """The schedule's seconds of a training up to a moment of the life at `place`: see Trained.emulated_s."""
    total = 0.0
    for number, life in enumerate(lives[: place + 1]):
        if number:
            total += life.trained_from - lives[number - 1].over
        until = moment if number == place else life.over
        total += max(0.0, until - life.trained_from) / time_scale
    return total


def longest_gap(lives: Sequence[Life]) -> float:
    """Real seconds of training without the end of an iteration, at most."""
    gaps = [0.0]
    for life in lives:
        moments = [life.trained_from, *sorted(life.ended.values()), life.over]
        gaps += [later - earlier for earlier, later in itertools.pairwise(moments)]
    return max(gaps)
