"""What of a run's checkpoints lies on this machine's disk, if the rest may lie on others'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skippipe.errors import UserError
from skippipe.model.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    done_iterations,
    folders_up_to,
    stage_file,
)
from skippipe.model.checkpoint_meta import Meta, read_meta


@dataclass(frozen=True)
class Part:
    """Those stages of a checkpoint that are here."""

    folder: Path
    meta: Meta
    stages: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all are."""
        return len(self.stages) == self.meta.stages

    @property
    def missing(self) -> tuple[int, ...]:
        """Stages that are not here."""
        return tuple(stage for stage in range(self.meta.stages) if stage not in self.stages)


def read_part(folder: Path) -> Part | None:
    """What of a checkpoint is in a folder; None if no stage is, UserError names a file that is unsound or foreign."""
    found = sorted(folder.glob("stage-*.safetensors"))
    if not found:
        return None
    meta = read_meta(found[0])
    for file in found:
        if not read_meta(file).agrees_with(meta):
            raise UserError(f"{file}: from another run or iteration than {found[0].name} beside it")
    return Part(folder, meta, tuple(stage for stage in range(meta.stages) if stage_file(folder, stage).exists()))


def parts_in(path: Path, most: int | None = None) -> list[Part]:
    """The newest `most` parts of checkpoints here, the newest first, of a run's folder or up to a checkpoint's own.

    There may be none, and no folder. An unsound file in any of them, down to the first that is whole, is a UserError:
    nobody should go on from an older checkpoint without knowing why.
    """
    parts: list[Part] = []
    for folder in folders_up_to(path):
        try:
            part = read_part(folder)
        except UserError as error:
            raise UserError(f"{error}; move {folder} away to go on without it") from None
        if part is not None:
            parts.append(part)
        if len(parts) == most or (part is not None and part.is_whole):
            break
    return parts


def folder_beside(path: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration belongs, given a run's folder or that of any of its checkpoints."""
    run = path if done_iterations(path.absolute()) is None else path.absolute().parent.parent
    return checkpoint_folder(run, iteration)


def newest_with(path: Path, stage: int, layers_per_stage: int) -> Checkpoint | None:
    """The newest checkpoint of which all that a stage of so many layers needs is here and sound, whole or not.

    `path` is a run's folder, or that of the newest checkpoint that may be it. UserError for an unsound file.
    """
    for folder in folders_up_to(path):
        part = read_part(folder)
        if part is None:
            continue
        if set(part.meta.stages_with(stage, layers_per_stage)) <= set(part.stages):
            return Checkpoint(part.folder, part.meta)
    return None
