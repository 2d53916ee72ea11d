"""What a node's compressed syncs have left out, as a file of its own beside the stages of a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.model.checkpoint import Checkpoint, checkpoint_folder, clean, rotate, write_durably
from skippipe.model.checkpoint_meta import FORMAT, Meta, build_meta, read_document

log = logging.getLogger(__name__)

LEFT_OUT = "left_out"


@dataclass(frozen=True)
class Replica:
    """A node among those of its stage: what its file is for, since each of them left out something else."""

    stage: int
    node: int
    replicas: tuple[int, ...]
    """Nodes of the stage in the order of their ranks, itself one of them."""

    def file(self, folder: Path) -> Path:
        """Where the node's file lies in a checkpoint's folder."""
        return folder / feedback_name(self.node)

    @property
    def document(self) -> dict[str, object]:
        """What the file says of the node."""
        return {"stage": self.stage, "node": self.node, "replicas": list(self.replicas)}


def feedback_name(node: int) -> str:
    """Name of a node's file."""
    return f"feedback-{node}.safetensors"


def save_feedback(run: Path, meta: Meta, replica: Replica, left_out: Tensor, remove_old: bool = True) -> None:
    """Save what a node has left out, (numbers of its stage,), into the run's checkpoint for meta.iteration.

    Older checkpoints lose their file as they lose their stages. UserError if the disk is full or can't be written.
    """
    folder = checkpoint_folder(run, meta.iteration)
    file = replica.file(folder)
    text = json.dumps({"format": FORMAT, **replica.document, **dataclasses.asdict(meta)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder.parent, [file.name])
        write_durably(file, lambda path: save_file({LEFT_OUT: left_out}, path, metadata={"skippipe": text}))
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{file}: can't be saved ({reason})") from None
    if remove_old:
        rotate(folder.parent, meta.config.checkpoints_kept, [file.name])


def load_feedback(checkpoint: Checkpoint, config: RunConfig, replica: Replica, left_out: Tensor) -> None:
    """Fill `left_out`, (numbers of the stage,), from a checkpoint; it stays as it is, with a line in the log, if the
    node's file is missing, unsound, or of other replicas, another model or another encoding than this run's.
    """
    file = replica.file(checkpoint.folder)
    try:
        left_out.copy_(read_feedback(file, checkpoint.meta, config, replica, tuple(left_out.shape)))
    except UserError as error:
        log.warning("%s: node %d begins with nothing left out of its syncs", error, replica.node)


def read_feedback(file: Path, meta: Meta, config: RunConfig, replica: Replica, shape: tuple[int, ...]) -> Tensor:
    """What a file says that a node has left out; UserError names why it can't be used."""
    if not file.exists():
        raise UserError(f"{file}: no such file")
    try:
        with safe_open(file, "pt") as opened:
            document = read_document((opened.metadata() or {}).get("skippipe"), file)
            found = {name: document.pop(name, None) for name in replica.document}
            if not build_meta(document, file).agrees_with(meta):
                raise UserError(f"{file}: from another run or iteration than the stages beside it")
            if found != replica.document:
                raise UserError(f"{file}: of other replicas of a stage than this run's")
            models = [dataclasses.replace(own.model, init_from=None) for own in (meta.config, config)]
            if models[0] != models[1] or meta.config.compression.sync != config.compression.sync:
                raise UserError(f"{file}: of another model or compression.sync than this run's")
            part = opened.get_slice(LEFT_OUT) if LEFT_OUT in set(opened.keys()) else None
            if part is None or (part.get_dtype(), tuple(part.get_shape())) != ("F32", shape):
                raise UserError(f"{file}: {LEFT_OUT} is not of the stage's size")
            tensor: Tensor = opened.get_tensor(LEFT_OUT)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: truncated or no safetensors file ({' '.join(str(error).split())[:120]})") from None
    if not bool(tensor.isfinite().all()):
        raise UserError(f"{file}: holds numbers that are not finite")
    return tensor
