"""What a checkpoint's file says of itself: typed, bounded and held against its tensors, for it may be a stranger's."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from skippipe.config import RunConfig
from skippipe.errors import UserError, shown
from skippipe.fields import build
from skippipe.model.blocks import layer_shapes

FORMAT = 2
SQUARES = "exp_avg_sq"
MOMENTS = ("exp_avg", SQUARES)
STEP = "optimizer.step"
MOST_TEXT = 100_000
IDENTITY_DIGITS = 26
MOST_STAGES, MOST_VOCABULARY, MOST_NAME = 10_000, 1 << 24, 200


@dataclass(frozen=True)
class Meta:
    """What each file of a checkpoint says of the run that it was saved in."""

    iteration: int
    """Iterations done, dropped ones too, and the number of the next one; with the seed also the position in files."""
    stages: int
    """Stages of the model, each with config.model.layers_per_stage layers."""
    vocabulary: int
    setting: str
    schedule_sha256: str
    """Hash of the schedule's JSON."""
    run: str
    """Random name of the run, the same in all of its processes."""
    config: RunConfig
    """The run's configuration. Its paths and addresses are another machine's, maybe a stranger's: none is used."""
    text: str = ""
    """Hash of the text, if it was a stream."""
    positions: tuple[tuple[int, ...], ...] = ()
    """Where each part of the stream goes on: file, row and tokens of it that are used up (data/stream.py)."""

    def __post_init__(self) -> None:
        for name, most in (("iteration", 10**12), ("stages", MOST_STAGES), ("vocabulary", MOST_VOCABULARY)):
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"{name} must lie between 1 and {most}, not {shown(getattr(self, name))}")
        if len(self.setting) > MOST_NAME:
            raise UserError(f"setting has {len(self.setting)} characters")
        for name in ("schedule_sha256", "run", "text"):
            if not re.fullmatch("[0-9a-f]{0,64}", getattr(self, name)):
                raise UserError(f"{name} must be at most 64 hexadecimal digits, not {shown(getattr(self, name))}")
        if len(self.positions) > MOST_STAGES or any(len(place) != 3 or min(place) < 0 for place in self.positions):
            raise UserError(f"positions must be three numbers for each part of the text, not {shown(self.positions)}")

    def agrees_with(self, other: Meta) -> bool:
        """Whether both are of one checkpoint, whose machines may differ in addresses, devices and paths."""
        return self.common() == other.common()

    def common(self) -> Meta:
        """With nothing of the configuration but the model; the run's name stands for the rest."""
        return replace(self, config=RunConfig(model=replace(self.config.model, init_from=None)))

    @property
    def identity(self) -> str:
        """Hash of what all files of a run's checkpoints have in common, on whichever machine: 26 hexadecimal digits."""
        text = json.dumps(dataclasses.asdict(replace(self.common(), iteration=1, positions=())), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:IDENTITY_DIGITS]

    def stages_with(self, stage: int, layers_per_stage: int) -> list[int]:
        """Stages of the checkpoint that hold what another cut, into stages of so many layers, has in a stage."""
        return stages_with(stage, layers_per_stage, self.config.model.layers_per_stage, self.stages)

    def shapes(self, stage: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors that a stage's file must hold, moments included."""
        model = self.config.model
        shapes: dict[str, tuple[int, ...]] = {}
        if stage == 0:
            embedding = (self.vocabulary, model.d_model)
            shapes |= {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
            shapes["model.norm.weight"] = (model.d_model,)
        for layer in range(stage * model.layers_per_stage, (stage + 1) * model.layers_per_stage):
            shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in layer_shapes(model).items()}
        moments = {f"{moment}.{name}": shape for moment in MOMENTS for name, shape in shapes.items()}
        return {**shapes, **moments, STEP: ()}


def stages_with(stage: int, layers_per_stage: int, saved_layers_per_stage: int, saved_stages: int) -> list[int]:
    """Stages of a cut that was saved which hold the layers of a stage of another cut of the same model."""
    first, last = stage * layers_per_stage, (stage + 1) * layers_per_stage - 1
    return [
        own for own in range(first // saved_layers_per_stage, last // saved_layers_per_stage + 1) if own < saved_stages
    ]


def read_meta(file: Path) -> Meta:
    """The run that a stage's file is from; UserError if it is truncated, none of ours, or holds other tensors."""
    try:
        with safe_open(file, "pt") as opened:
            meta, stage = parse_meta((opened.metadata() or {}).get("skippipe"), file)
            held = set(opened.keys())
            for name, shape in meta.shapes(stage).items():
                part = opened.get_slice(name) if name in held else None
                found = (part.get_dtype(), tuple(part.get_shape())) if part is not None else "nothing"
                if found != ("F32", shape):
                    raise UserError(f"{file}: {name}: ('F32', {shape}) expected, {found} found")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: truncated or no safetensors file ({' '.join(str(error).split())[:120]})") from None
    return meta


def read_document(text: str | None, file: Path) -> dict[str, Any]:
    """The fields of a file's metadata, not checked yet; UserError if it is none of ours."""
    foreign = UserError(f"{file}: not a checkpoint of SkipPipe")
    if text is None or len(text) > MOST_TEXT:
        raise foreign
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise foreign from None
    if not isinstance(document, dict) or "stage" not in document:
        raise foreign
    if document.pop("format", None) != FORMAT:
        raise UserError(f"{file}: written by another version of SkipPipe")
    return document


def parse_meta(text: str | None, file: Path) -> tuple[Meta, int]:
    """Metadata, and the stage that the file says it holds; UserError names what is wrong."""
    document = read_document(text, file)
    stage = document.pop("stage")
    if type(stage) is not int or f"stage-{stage}" != file.stem:
        raise UserError(f"{file}: holds another stage than its name says")
    meta = build_meta(document, file)
    if not 0 <= stage < meta.stages:
        raise UserError(f"{file}: stage {stage} of {meta.stages}")
    return meta, stage


def build_meta(document: dict[str, Any], file: Path) -> Meta:
    """What the file says of its run, every field checked; UserError names what is wrong."""
    try:
        return build(Meta, document, str(file))
    except TypeError:  # a field is missing
        raise UserError(f"{file}: not a checkpoint of SkipPipe") from None
