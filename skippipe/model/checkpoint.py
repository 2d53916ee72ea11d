"""Checkpoints: each stage a safetensors file with weights, moments and the run it comes from; complete or ignored."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from skippipe.config import RunConfig
from skippipe.data.tokenizer import PRETRAINED, PRETRAINED_CONFIG, SENTENCEPIECE, tokenizer_files
from skippipe.errors import UserError
from skippipe.model.checkpoint_meta import FORMAT, MOMENTS, SQUARES, STEP, Meta, read_meta
from skippipe.model.optimizer import StageOptimizer
from skippipe.model.stage import Stage, canonical_state, canonical_tensors, own_state

log = logging.getLogger(__name__)

TOKENIZER_FILES = [SENTENCEPIECE, PRETRAINED, PRETRAINED_CONFIG]
SET_ASIDE = "not-finite"
"""What a checkpoint's folder is called instead of "iteration" once its weights have given no finite numbers."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk, or as much of it as the nodes of this machine need."""

    folder: Path
    meta: Meta

    @property
    def files(self) -> list[Path]:
        """The files of all stages."""
        return [stage_file(self.folder, stage) for stage in range(self.meta.stages)]

    def files_for(self, stage: Stage) -> list[Path]:
        """Those that hold what a stage of the same model has, in any cut."""
        found = self.meta.stages_with(stage.stage, stage.config.layers_per_stage)
        return [stage_file(self.folder, own) for own in found]

    @property
    def tokenizer(self) -> Path:
        """The sentencepiece .model file of the run, or the folder of its files if it is one of transformers'."""
        pieces = self.folder / SENTENCEPIECE
        return pieces if pieces.exists() else self.folder


def stage_file(folder: Path, stage: int) -> Path:
    """Where a stage lies in a checkpoint's folder."""
    return folder / stage_name(stage)


def stage_name(stage: int) -> str:
    """Name of a stage's file."""
    return f"stage-{stage}.safetensors"


def checkpoint_folder(run: Path, iteration: int) -> Path:
    """Folder of the checkpoint that a run makes when this many iterations are done."""
    return run / "checkpoints" / f"iteration-{iteration:06d}"


def done_iterations(folder: Path) -> int | None:
    """Iterations that were done when a checkpoint was made, from its folder's name; None for another folder."""
    match = re.fullmatch(r"iteration-(\d{1,18})", folder.name, re.ASCII)
    return int(match[1]) if match else None


def folders_in(parent: Path) -> list[Path]:
    """Folders of checkpoints, the newest first."""
    numbered = [
        (done, folder) for folder in parent.glob("iteration-*") if (done := done_iterations(folder)) is not None
    ]
    return [folder for _, folder in sorted(numbered, reverse=True)]


def save_stage(
    run: Path, meta: Meta, stage: Stage, optimizer: StageOptimizer, tokenizer: Path, remove_old: bool = True
) -> None:
    """Save one stage into the run's checkpoint for meta.iteration; stage 0 brings the tokenizer along.

    The checkpoint counts once all of its stages are there. Each file appears complete, under its name, or not at all.
    With `remove_old` the stage's files in all but the newest meta.config.checkpoints_kept checkpoints are removed.
    UserError if the disk is full or can't be written.
    """
    folder = checkpoint_folder(run, meta.iteration)
    files = [stage_file(folder, stage.stage).name, *(TOKENIZER_FILES if stage.stage == 0 else [])]
    names = [name for name, _ in stage.named_parameters()]
    tensors = dict(canonical_state(stage))
    for moment in MOMENTS:
        own = dict(zip(names, optimizer.moments(moment), strict=True))
        tensors |= {f"{moment}.{name}": tensor for name, tensor in canonical_tensors(stage, own).items()}
    tensors[STEP] = optimizer.moments("step")[0]
    held = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, "stage": stage.stage, **dataclasses.asdict(meta)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder.parent, files)
        if stage.stage == 0:
            for file in tokenizer_files(tokenizer):
                name = SENTENCEPIECE if file == tokenizer else file.name
                write_durably(folder / name, partial(shutil.copyfile, file))
        write_durably(stage_file(folder, stage.stage), lambda path: save_file(held, path, metadata={"skippipe": text}))
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{folder}: stage {stage.stage} can't be saved ({reason})") from None
    if remove_old:
        rotate(folder.parent, meta.config.checkpoints_kept, files)


def temporary_file(path: Path) -> Path:
    """Where a file is written before it gets its name."""
    return path.with_name(f".{path.name}.tmp")


def clean(parent: Path, files: list[str]) -> None:
    """Remove what a process that died left half written of some files, in all checkpoints of a run."""
    for name in files:
        for left_over in parent.glob(f"*/{temporary_file(Path(name)).name}"):
            left_over.unlink(missing_ok=True)


def rotate(parent: Path, kept: int, files: list[str]) -> None:
    """Remove some files from all but the newest `kept` checkpoints of a run, and a folder with its last file."""
    for folder in folders_in(parent)[kept:]:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty yet
            folder.rmdir()


def set_aside(run: Path, first: int) -> None:
    """Rename the checkpoints made when `first` iterations or more were done, so that nobody goes on from them."""
    for folder in folders_in(run / "checkpoints"):
        done = done_iterations(folder)
        if done is not None and done >= first:
            # Another machine may have done it already, if they share the disk.
            with contextlib.suppress(FileNotFoundError):
                folder.rename(folder.with_name(folder.name.replace("iteration", SET_ASIDE, 1)))


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, bring it to the disk and give it its name; nothing is left if that fails."""
    temporary = temporary_file(path)
    try:
        write(temporary)
        for entry, renamed in ((temporary, False), (path.parent, True)):
            if renamed:
                os.replace(temporary, path)
            descriptor = os.open(entry, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    finally:
        temporary.unlink(missing_ok=True)


def find_latest(path: Path) -> Checkpoint:
    """The newest complete checkpoint of a run's folder, or the checkpoint whose own folder is given.

    One whose stages are not all there was never finished and is passed over. UserError if there is none, and for a
    file that is truncated or belongs elsewhere: it names the file and the checkpoint before it.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give a run's folder, such as runs/ca-partial-..., or a checkpoint's")
    folders = folders_up_to(path)
    for place, folder in enumerate(folders):
        try:
            checkpoint = read_checkpoint(folder)
        except UserError as error:
            before = next((other for other in folders[place + 1 :] if is_complete(other)), None)
            remedy = f"resume from the one before it: {before}" if before else "there is no complete one before it"
            raise UserError(f"{error}; {remedy}") from None
        if checkpoint is not None:
            return checkpoint
        log.warning("%s: saving it was not finished, passed over", folder)
    raise UserError(
        f"{path}: no complete checkpoint; if the rest lies on other machines: skippipe checkpoints {path} --gather"
        if any(any(folder.glob("stage-*.safetensors")) for folder in folders)
        else f"{path}: no complete checkpoint; train with checkpoint_every=10, for example"
    )


def folders_up_to(path: Path) -> list[Path]:
    """Checkpoints of a run's folder, or those up to the one whose own folder is given, the newest first."""
    own = done_iterations(path.absolute())
    if own is None:
        return folders_in(path / "checkpoints")
    return [folder for folder in folders_in(path.absolute().parent) if (done_iterations(folder) or 0) <= own]


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint is complete and sound."""
    try:
        return read_checkpoint(folder) is not None
    except UserError:
        return False


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read what a checkpoint's files say of it; None if stages are missing, UserError if a file is unsound."""
    found = sorted(folder.glob("stage-*.safetensors"))
    if not found:
        return None
    meta = read_meta(found[0])
    checkpoint = Checkpoint(folder, meta)
    if not all(file.exists() for file in checkpoint.files):
        return None
    for file in checkpoint.files:
        if not read_meta(file).agrees_with(meta):
            raise UserError(f"{file}: from another run or iteration than {found[0].name} beside it")
    return checkpoint


def check_same_model(checkpoint: Checkpoint, config: RunConfig, stages: int, vocabulary: int) -> None:
    """Refuse a checkpoint of another model: UserError names the field that differs."""
    theirs, ours = checkpoint.meta.config.model, config.model
    fields = {
        "model.d_model": (theirs.d_model, ours.d_model),
        "model.heads": (theirs.heads, ours.heads),
        "model.feed_forward": (theirs.hidden_width, ours.hidden_width),
        "layers in all": (checkpoint.meta.stages * theirs.layers_per_stage, stages * ours.layers_per_stage),
        "tokens in the vocabulary": (checkpoint.meta.vocabulary, vocabulary),
    }
    for name, (saved, wanted) in fields.items():
        if saved != wanted:
            raise UserError(f"{checkpoint.folder}: of another model, {name}: {saved} saved, {wanted} in this run")


def load_stage(checkpoint: Checkpoint, stage: Stage, optimizer: StageOptimizer | None = None) -> None:
    """Fill a stage, and its optimizer, from a checkpoint of the same model in any layout of its layers.

    UserError names the tensor that is missing or of another shape.
    """
    files = checkpoint.files_for(stage)
    weights = read_tensors(files, "", stage)
    stage.load_state_dict(own_state(stage, weights))
    if optimizer is None:
        return
    step = read_step(files[0], checkpoint.meta.iteration)
    moments = {moment: own_state(stage, read_tensors(files, f"{moment}.", stage)) for moment in MOMENTS}
    for name, parameter in stage.named_parameters():
        state = {moment: tensors[name].to(parameter.device).clone() for moment, tensors in moments.items()}
        optimizer.restore(parameter, step, state)


def read_step(file: Path, iteration: int) -> float:
    """The optimizer's count of steps in a stage's file, after so many iterations; UserError if it can't be one."""
    with safe_open(file, "pt") as opened:
        step = float(opened.get_tensor(STEP))
    # Dropped iterations count among those done, and are no steps.
    if not (step.is_integer() and 0 <= step <= iteration):
        raise UserError(f"{file}: {STEP}: {step:g} steps in {iteration} iterations")
    return step


def read_tensors(files: Iterable[Path], prefix: str, stage: Stage) -> dict[str, Tensor]:
    """Those of a stage's canonical tensors, kept under names with a prefix, that safetensors files hold."""
    wanted = canonical_state(stage)
    tensors: dict[str, Tensor] = {}
    last = Path()
    for last in files:
        try:
            with safe_open(last, "pt") as opened:
                names = [name for name in wanted if prefix + name in opened.keys()]  # noqa: SIM118
                tensors |= {name: opened.get_tensor(prefix + name).to(torch.float32) for name in names}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{last}: can't be read ({' '.join(str(error).split())[:120]})") from None
    for name, tensor in wanted.items():
        if name in tensors and not bool(torch.isfinite(tensors[name]).all()):
            raise UserError(f"{last.parent}: {prefix}{name}: holds numbers that are not finite")
        if prefix == f"{SQUARES}." and name in tensors and bool((tensors[name] < 0).any()):
            raise UserError(f"{last.parent}: {prefix}{name}: a mean of squares is negative")
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        if found != tuple(tensor.shape):
            raise UserError(f"{last.parent}: {prefix}{name}: {tuple(tensor.shape)} expected, {found} found")
    return tensors


def load_stages(checkpoint: Checkpoint, device: str = "cpu") -> list[Stage]:
    """Every stage of a checkpoint's model, for inference: with transformers' layers, which have a key-value cache."""
    meta = checkpoint.meta
    model = dataclasses.replace(meta.config.model, blocks="transformers", init_from=None)
    stages = [Stage(model, stage, meta.vocabulary, meta.config.seed) for stage in range(meta.stages)]
    for stage in stages:
        load_stage(checkpoint, stage)
        stage.to(device)
    return stages
