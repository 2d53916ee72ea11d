"""The text of a run, in a part for each stage-0 node that it begins with, whoever reads a part later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from skippipe.data.batches import Batches
from skippipe.data.prepared import Prepared, TokenFile
from skippipe.data.stream import Position, StreamBatches, Streamed, positions_after


class Parts:
    """Reads the batches of any part. Of a stream it has to be told, iteration by iteration, where each part goes on."""

    def __init__(self, prepared: Prepared, numbers: Sequence[int], samples: int, context: int, seed: int) -> None:
        """In an iteration each part has so many batches (`numbers`) of `samples` sequences of `context` tokens."""
        self.prepared, self.numbers = prepared, numbers
        self.samples, self.context, self.seed = samples, context, seed
        self.files: dict[int, Batches] = {}
        self.streams: dict[int, StreamBatches] = {}
        """Those that were read here, by part."""
        self.iteration = 0
        self.positions: tuple[Position, ...] = ()
        """Where the parts of a stream begin in the iteration."""

    def begin(self, iteration: int, positions: Sequence[Position]) -> None:
        """The parts of a stream begin an iteration at these positions; none are needed of a token file."""
        self.iteration, self.positions = iteration, tuple(positions)

    def batch(self, iteration: int, part: int, number: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets, (B, T) int64 each, of a part's batch; the same whoever reads it, and how often."""
        if isinstance(self.prepared, Streamed):
            return self.stream(iteration, part).batch(number)
        if part not in self.files:
            assert isinstance(self.prepared, TokenFile)
            self.files[part] = Batches(self.prepared, part, len(self.numbers), self.samples, self.context, self.seed)
        return self.files[part].batch(iteration, number)

    def stream(self, iteration: int, part: int) -> StreamBatches:
        """A part of a stream, in an iteration."""
        assert iteration == self.iteration, f"iteration {iteration} is read in {self.iteration}"
        assert isinstance(self.prepared, Streamed)
        if part not in self.streams:
            self.streams[part] = StreamBatches(
                self.prepared, part, len(self.numbers), self.samples, self.context, self.numbers[part]
            )
        self.streams[part].begin(iteration, self.positions[part])
        return self.streams[part]

    def ends(self) -> dict[int, Position]:
        """Where those parts go on after the iteration that were read to its end here; none of a token file."""
        own = {part: stream.end for part, stream in self.streams.items() if stream.iteration == self.iteration}
        return {part: end for part, end in own.items() if end is not None}

    def go_on(self, ends: Mapping[int, Position]) -> None:
        """Begin the next iteration, where others have read to; what nobody tells is read here."""
        self.positions = tuple(
            (ends.get(part) or self.stream(self.iteration, part).read_to_end()) if self.numbers[part] else position
            for part, position in enumerate(self.positions)
        )
        self.iteration += 1

    def place(self, iteration: int) -> dict[str, Any]:
        """What a checkpoint says of where a stream begins an iteration: fields of its Meta, none of a token file."""
        if not self.positions:
            return {}
        assert iteration == self.iteration
        return {"text": self.prepared.digest(), "positions": tuple(map(tuple, self.positions))}


def first_positions(
    prepared: Prepared, parts: int, text: str = "", saved: Sequence[Sequence[int]] = ()
) -> tuple[Position, ...]:
    """Where the parts of a stream begin, as a checkpoint says if it is of the same one; none of a token file."""
    if not isinstance(prepared, Streamed):
        return ()
    known = [Position(*place) for place in saved] if text == prepared.digest() else []
    return positions_after(known, parts, prepared.text.files)


def check_parts(prepared: Prepared, parts: int, samples: int, context: int) -> None:
    """UserError if a part has no text for a batch; of a stream the beginning of each is read."""
    numbers = [1] * parts
    own = Parts(prepared, numbers, samples, context, seed=0)
    own.begin(0, first_positions(prepared, parts))
    for part in range(parts):
        own.batch(0, part, 0)
