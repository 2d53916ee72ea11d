"""Validation loss and perplexity with all stages or some left out: at random, from a list, or after an early exit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from skippipe.errors import UserError
from skippipe.model.stage import Stage

Visited = tuple[int, ...]
"""The stages that a batch visits, in order; stage 0 comes first and computes the loss."""


@dataclass(frozen=True)
class Validation:
    """What validation over several choices of stages gave; deviations are over the choices, 0 for a single one."""

    visited: tuple[Visited, ...]
    loss: float
    """Mean loss in nats a token."""
    loss_deviation: float
    perplexity: float
    """Mean of the choices' perplexities."""
    perplexity_deviation: float


def all_stages(stages: int) -> Visited:
    """Every stage in order."""
    return tuple(range(stages))


def leave_out(stages: int, omitted: Collection[int]) -> Visited:
    """Every stage in order but the omitted ones; UserError for stage 0 and for stages that there aren't."""
    for stage in omitted:
        if stage == 0:
            raise UserError("stage 0 can't be left out: it has the embedding and the head (CC1)")
        if not 0 < stage < stages:
            raise UserError(f"stage {stage} can't be left out: the model has stages 0 to {stages - 1}")
    return tuple(stage for stage in range(stages) if stage not in omitted)


def early_exit(stages: int, last: int) -> Visited:
    """Stages 0 to `last` in order; UserError if there is no such stage."""
    if not 0 <= last < stages:
        raise UserError(f"no exit after stage {last}: the model has stages 0 to {stages - 1}")
    return tuple(range(last + 1))


def leave_out_at_random(stages: int, ratio: float, draws: int, seed: int) -> tuple[Visited, ...]:
    """Draws of stages with ratio x stages left out, never stage 0 (counted in the ratio, as in the paper).

    If ratio x stages is no whole number, draws take the numbers below and above it so that their mean is right.
    UserError for a ratio that would leave out stage 0 as well.
    """
    wanted = ratio * stages
    if not 0 <= ratio < 1 or wanted > stages - 1 + 1e-9:
        most = (stages - 1) / stages
        raise UserError(f"ratio {ratio:g} can't be left out of {stages} stages: stage 0 stays, so at most {most:.3g}")
    generator = numpy.random.default_rng(seed)
    chosen = []
    for draw in range(draws):
        count = min(stages - 1, math.floor(wanted + (draw + 0.5) / draws + 1e-9))
        omitted = generator.choice(numpy.arange(1, stages), size=count, replace=False)
        chosen.append(leave_out(stages, [int(stage) for stage in omitted]))
    return tuple(chosen)


def forward(stages: Sequence[Stage], visited: Visited, tokens_BT: Tensor) -> Tensor:
    """Token ids (B, T) through the visited stages to hidden states (B, T, D)."""
    hidden_BTD = tokens_BT
    for stage in visited:
        hidden_BTD = stages[stage](hidden_BTD)
    return hidden_BTD


@torch.no_grad()
def validation_loss(stages: Sequence[Stage], visited: Visited, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Mean loss in nats a token over batches of tokens and targets, (B, T) each."""
    device = next(stages[0].parameters()).device
    total, tokens = 0.0, 0
    for tokens_BT, targets_BT in batches:
        hidden_BTD = forward(stages, visited, tokens_BT.to(device))
        total += float(stages[0].loss(hidden_BTD, targets_BT.to(device))) * tokens_BT.numel()
        tokens += tokens_BT.numel()
    return total / tokens


def validate(
    stages: Sequence[Stage], visited: Sequence[Visited], batches: Iterable[tuple[Tensor, Tensor]]
) -> Validation:
    """Loss and perplexity for each choice of stages, over the same batches."""
    batches = list(batches)
    loss_of = {choice: validation_loss(stages, choice, batches) for choice in dict.fromkeys(visited)}
    losses = [loss_of[choice] for choice in visited]
    perplexities = [perplexity_of(loss) for loss in losses]
    return Validation(
        tuple(visited),
        statistics.fmean(losses),
        deviation(losses),
        statistics.fmean(perplexities),
        deviation(perplexities),
    )


def perplexity_of(loss: float) -> float:
    """Perplexity of a loss in nats a token; infinite if it is beyond what a float holds."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def deviation(values: list[float]) -> float:
    """Sample standard deviation, 0 for a single value, nan if a value is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) if len(values) > 1 else 0.0
