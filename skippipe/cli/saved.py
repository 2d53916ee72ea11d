"""What lies on this machine of a run's checkpoints: what a run goes on from, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.schedule import Schedule

if TYPE_CHECKING:
    from skippipe.data.prepared import Prepared
    from skippipe.model.checkpoint import Checkpoint


def find_checkpoint(path: Path, config: RunConfig, schedule: Schedule, setting: str, prepared: Prepared) -> Checkpoint:
    """The checkpoint to go on from; UserError if it is of another model or has nothing left to do."""
    from skippipe.model.checkpoint import check_same_model, find_latest

    checkpoint = find_latest(path)
    done = checkpoint.meta.iteration
    check_same_model(checkpoint, config, len(schedule.settings[setting].stages), prepared.vocabulary)
    if done >= config.iterations:
        raise UserError(f"{checkpoint.folder} has {done} iterations done already; add iterations={2 * done}")
    return checkpoint


def check_part(path: Path, config: RunConfig, schedule: Schedule, setting: str, prepared: Prepared) -> None:
    """UserError if what is here of the checkpoints to go on from is unsound or of another model.

    There may be nothing: other machines may have all of it.
    """
    from skippipe.model.checkpoint import Checkpoint, check_same_model
    from skippipe.model.parts import parts_in

    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: no folder; give a run's, such as runs/ca-partial-..., or a checkpoint's")
    for part in parts_in(path)[:1]:
        stages = len(schedule.settings[setting].stages)
        check_same_model(Checkpoint(part.folder, part.meta), config, stages, prepared.vocabulary)


class Saved(NamedTuple):
    """What a run has left of a checkpoint."""

    where: str
    """In words."""
    missing: str | None
    """Why it is not complete; None if it is."""


def saved_after(folder: Path, done: int, is_alone: bool, lost: list[int]) -> Saved:
    """The checkpoint of a run after so many iterations; the stages `lost` had nobody left.

    A machine that is not alone has those stages whose first nodes it runs. All others were saved, too: nodes leave
    together, after each has saved.
    """
    from skippipe.model.checkpoint import checkpoint_folder, find_latest
    from skippipe.model.parts import read_part

    wanted = checkpoint_folder(folder, done)
    try:
        if is_alone:
            is_there = find_latest(wanted).folder.name == wanted.name
            return Saved(str(wanted), None if is_there else "stages are missing")
        part = read_part(wanted)
    except UserError as error:
        return Saved(str(wanted), str(error))
    if lost:
        return Saved(str(wanted), f"nobody is left that has stage {', '.join(map(str, lost))}")
    if part is None:
        return Saved("on other machines", None)
    if part.is_whole:
        return Saved(str(wanted), None)
    here = ", ".join(map(str, part.stages))
    return Saved(f"{wanted} (stage {here} of 0 to {part.meta.stages - 1}; the others lie on other machines)", None)


def newest_checkpoint(folder: Path, name: str, is_alone: bool, before: Path | None) -> str:
    """A line that says from where a failed run can go on; `name` says what kind of checkpoint that is.

    If it has left none that is `before`, what it went on from itself.
    """
    from skippipe.model.checkpoint import find_latest
    from skippipe.model.parts import parts_in

    try:
        if is_alone:
            return f"{name}: {find_latest(folder).folder}; go on from it with --resume {folder}"
        for part in parts_in(folder, 1):
            stages = ", ".join(map(str, part.stages))
            here = "" if part.is_whole else f", of which stage {stages} is here; if other machines have the rest,"
            return f"{name}: {part.folder}{here or ';'} go on from it with --resume {folder} on every machine"
    except UserError as error:
        said = str(error)
    else:
        said = f"{folder}: no checkpoint is left that can be gone on from"
    if not any((folder / "checkpoints").glob("*/stage-*")):
        said = "no checkpoint was made; checkpoint_every=10 makes one every ten iterations"
    return said if before is None or not before.exists() else f"{said}; this run went on from {before}"
