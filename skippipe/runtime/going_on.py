"""What the user should know of a run that goes on from a checkpoint of one that was not quite the same."""

from __future__ import annotations

from skippipe.config import RunConfig
from skippipe.data.parts import first_positions
from skippipe.data.prepared import Prepared
from skippipe.data.stream import Streamed
from skippipe.model.checkpoint import Checkpoint
from skippipe.model.optimizer import learning_rate


def warnings_of(checkpoint: Checkpoint, config: RunConfig, prepared: Prepared, parts: int) -> list[str]:
    """What is another one in a run whose text has so many parts, a sentence each."""
    found = (cosine_warning(checkpoint, config), text_warning(checkpoint, prepared, parts))
    return [f"warning: {checkpoint.folder} {said}" for said in found if said is not None]


def cosine_warning(checkpoint: Checkpoint, config: RunConfig) -> str | None:
    """What to say if the checkpoint's cosine was of another number of iterations."""
    done, before, now = checkpoint.meta.iteration, checkpoint.meta.config.iterations, config.iterations
    if config.optimizer.decay != "cosine" or before == now:
        return None
    rate = learning_rate(config.optimizer, done, now)
    return (
        f"is of a run of {before} iterations; the cosine now ends after {now}, and the learning rate goes on at"
        f" {rate:.3g}"
    )


def text_warning(checkpoint: Checkpoint, prepared: Prepared, parts: int) -> str | None:
    """What to say if a stream does not just go on from the checkpoint."""
    if not isinstance(prepared, Streamed):
        return None
    meta, text = checkpoint.meta, prepared.text
    if meta.text != prepared.digest():
        theirs = meta.config.data
        there = f" (data.hub {theirs.hub}, revision {theirs.hub_revision})" if theirs.source == "hub" else ""
        return f"was trained on another text{there} or with another tokenizer; {text} is read from its beginning"
    if len(meta.positions) == parts:
        return None
    file, row, _ = min(first_positions(prepared, parts, meta.text, meta.positions))
    return (
        f"is of a run of {len(meta.positions)} origins, this one has {parts}: the text goes on after all that was"
        f" begun, in row {row} of file {file % text.files}; what slower origins had not read before it is left out"
    )
