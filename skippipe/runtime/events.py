"""What a node's process tells its launcher: typed events, each a JSON line in the pipe between them."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass

from skippipe.report.metrics import BatchMetrics, IterationMetrics
from skippipe.report.records import from_object, to_object

KIND = "event"
"""Key under which a line names its event's class."""


@dataclass(frozen=True)
class Ready:
    """A node has built its stage and met the others."""

    node: int


@dataclass(frozen=True)
class Resumed:
    """The nodes have agreed on the checkpoint that they go on from, whose files lie on several machines."""

    folder: str
    """Where what this machine needs of it lies now."""
    files: int
    """That were fetched from others."""
    size: int
    """Of these, in bytes."""
    warnings: tuple[str, ...]
    """What is another one in this run."""


@dataclass(frozen=True)
class IterationLoss:
    """An iteration is done; its other figures follow once every node's optimizer step has ended."""

    iteration: int
    loss: float
    """Mean over all microbatches, in nats a token."""
    dropped: str | None = None
    """Where the numbers began that were not finite, if the iteration was dropped for them."""


@dataclass(frozen=True)
class ViewBegun:
    """The nodes have agreed on another view (survival/view.py) and go on in it."""

    number: int
    iteration: int
    """The first one that is done in it."""
    lost: tuple[int, ...]
    joined: tuple[int, ...]
    moved: tuple[int, ...]
    """Nodes that hold another stage in it than in the one before."""
    way: str
    """How they go on (survival/view.py)."""
    heirs: tuple[int, ...]
    """Nodes that took microbatches over."""
    taken_over: int
    """Microbatches that were."""
    stages: tuple[int, ...]
    """Nodes of each stage."""
    stages_before: tuple[int, ...]
    """The same in the view before."""
    expected_step_s: float
    rerouted: int = 0
    """Microbatches that visit other stages than in the view before."""


@dataclass(frozen=True)
class Joining:
    """A node's process lives and is to join the others; told again and again until it has."""

    node: int


@dataclass(frozen=True)
class NodeBack:
    """Another process of a node has joined the others, and has its stage's state."""

    node: int
    iteration: int
    """The first that it takes part in."""
    stage: int
    source: str
    """Where the state came from, in words."""
    size: int
    """Of the state, in bytes."""
    seconds: float
    """From when the donor sent it until all of it was there."""


@dataclass(frozen=True)
class FirstRestored:
    """A node has taken the first stage, which had lost all of its nodes."""

    node: int
    iteration: int
    """The first that it does with it."""
    source: str
    """Where the state came from, in words."""


@dataclass(frozen=True)
class NodeSlow:
    """A node has become slow, or is as fast as usual again."""

    node: int
    iteration: int
    """From which on."""
    factor: float
    """Times that its tasks take over what they usually do."""


@dataclass(frozen=True)
class Leaving:
    """All nodes have saved and leave after an iteration, because a machine was told to stop."""

    iteration: int
    asked: int
    """The first node that was told."""


@dataclass(frozen=True)
class EvaluationDone:
    """The last batch of an evaluation over live nodes was reported."""


@dataclass(frozen=True)
class MeasurementDone:
    """A node has taken its part in one measurement of a profile."""


@dataclass(frozen=True)
class LinkMeasured:
    """A profile's figures of the link between two nodes, of which the first has the smaller number."""

    first: int
    second: int
    latency_ms: float
    """One way."""
    bandwidth_gib_s: float
    """With which the cost model's hop takes what an activation's took."""
    hop_fixed_s: float
    """What a hop takes beside latency and bytes over bandwidth; of all links alike."""


@dataclass(frozen=True)
class ComputeMeasured:
    """A profile's figures of one node."""

    node: int
    forward_s: float
    """A sample and layer."""
    backward_s: float
    """A sample and layer."""
    loss_s: float
    """A sample."""
    gap_s: float
    """Between two tasks."""


@dataclass(frozen=True)
class SyncMeasured:
    """A profile's figure of an all-reduce that a node and those after it took part in."""

    node: int
    bytes_per_parameter: float
    """Seconds x bandwidth of their slowest link / parameters."""


Event = (
    Ready
    | Resumed
    | IterationLoss
    | IterationMetrics
    | ViewBegun
    | Joining
    | NodeBack
    | FirstRestored
    | NodeSlow
    | Leaving
    | BatchMetrics
    | EvaluationDone
    | MeasurementDone
    | LinkMeasured
    | ComputeMeasured
    | SyncMeasured
)
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in typing.get_args(Event)}


def encode(event: Event) -> bytes:
    """The event as a line, its end included."""
    return (json.dumps({KIND: type(event).__name__, **to_object(event)}) + "\n").encode()


def decode(line: bytes) -> Event:
    """The event of a line; ValueError if it is none: something else than a node of ours wrote into the pipe."""
    try:
        document = json.loads(line)
        kind = document.pop(KIND, None) if isinstance(document, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"kind {kind!r}")
        return from_object(KINDS[kind], document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{line[:100]!r} is no event of a node: {error}") from None
