"""What each node tells all others after an iteration, and the metrics that become of it."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Collection
from dataclasses import dataclass

from skippipe.report.metrics import IterationMetrics
from skippipe.runtime.gradients import Exchange, Group
from skippipe.transport.addresses import ADDRESS_NUMBERS, address_numbers, address_of_numbers
from skippipe.transport.links import Links
from skippipe.transport.message import whole_number

BITS_OF_A_FIGURE = 52
"""A shared figure is a double, which holds whole numbers of so many bits."""
MOST_PART = (1 << BITS_OF_A_FIGURE) - 1
NAME_FIGURES = 2
"""Of which the run's name is made."""


@dataclass
class Figures:
    """What a node tells all others after an iteration, before the optimizer step."""

    squared_norm: float
    loss_sum: float
    microbatches: float
    first_forward: float
    last_backward: float
    previous_step_end: float
    bytes_sent: float
    """Message bytes of this iteration: activations and gradients."""
    stop_asked: float
    """1 if the node's process was told to save and leave."""
    poison: float
    """What was not finite at the node (soundness.Poison), 0 if everything was."""
    slowness: float
    """How long its tasks took over what the schedule expects of them, 0 if it had none."""


COUNT = len(dataclasses.fields(Figures))


def widths(places: int) -> dict[Exchange, int]:
    """How many numbers each node shares, of which so many say where the text goes on."""
    return {
        Exchange.MEETING: NAME_FIGURES + ADDRESS_NUMBERS,
        Exchange.FIGURES: COUNT + places,
        Exchange.PERPLEXITY: 2,
        Exchange.ENDS: 1,
    }


Rows = dict[int, list[float]]
"""What every node has told, by node."""


def share_figures(group: Group, links: Links, iteration: int, figures: Figures, places: list[float]) -> Rows:
    """Every node's figures of an iteration, and where it has read the text to."""
    return group.share(links, iteration, Exchange.FIGURES, [*dataclasses.astuple(figures), *places])


def figures_of(rows: Rows) -> dict[int, Figures]:
    """The figures by node."""
    return {node: Figures(*row[:COUNT]) for node, row in rows.items()}


def places_of(rows: Rows) -> list[list[float]]:
    """Where each node has read the text to."""
    return [row[COUNT:] for row in rows.values()]


def meet(group: Group, links: Links, iteration: int) -> str:
    """Learn where everyone is, and the run's random name, 26 hexadecimal digits drawn by node 0; once, at the start."""
    mine = [float(secrets.randbits(BITS_OF_A_FIGURE)) for _ in range(NAME_FIGURES)]
    mine += address_numbers(links.listeners.address, links.listeners.stream_port)
    rows = group.share(links, iteration, Exchange.MEETING, mine)
    links.learn({node: address_of_numbers(row[NAME_FIGURES:]) for node, row in rows.items()})
    return "".join(f"{whole_number(part, MOST_PART):013x}" for part in rows[min(rows)][:NAME_FIGURES])


def mean_loss(figures: Collection[Figures]) -> float:
    """Mean loss over all microbatches of an iteration, in nats a token."""
    return sum(row.loss_sum for row in figures) / sum(row.microbatches for row in figures)


def iteration_metrics(
    iteration: int,
    figures: Collection[Figures],
    step_ends: Collection[float],
    tokens: int,
    time_scale: float,
    perplexity: float | None,
    cause: str | None,
) -> IterationMetrics:
    """What an iteration of so many tokens took until all nodes' optimizer steps had ended, at `step_ends`.

    `cause` says why it was dropped, if it was. Times are divided by `time_scale`.
    """
    begin = min(row.first_forward for row in figures)
    step_s = (max(step_ends) - begin) / time_scale
    return IterationMetrics(
        iteration=iteration,
        loss=mean_loss(figures),
        gradient_norm=sum(row.squared_norm for row in figures) ** 0.5,
        iteration_s=(max(row.last_backward for row in figures) - begin) / time_scale,
        step_s=step_s,
        tokens=tokens,
        tokens_per_second=tokens / (step_s * time_scale),
        bytes_sent=int(sum(row.bytes_sent for row in figures)),
        validation_perplexity=perplexity,
        dropped=cause,
    )
