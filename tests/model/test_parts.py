"""What of checkpoints lies on one machine's disk: which stages, whether they are sound, what a stage needs of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from skippipe.config import ModelConfig, RunConfig
from skippipe.data.prepared import Prepared
from skippipe.errors import UserError
from skippipe.model.checkpoint import Checkpoint, checkpoint_folder, load_stage, stage_file
from skippipe.model.checkpoint_meta import Meta, stages_with
from skippipe.model.parts import folder_beside, newest_with, parts_in, read_part
from skippipe.model.stage import Stage, canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Plan

PATHS, STAGES = ((0, 1, 2), (0, 2)), ((0,), (1,), (2,))
MODEL = ModelConfig(d_model=16, heads=2, context=16, layers_per_stage=2)


@pytest.fixture
def run(prepared: Prepared, tmp_path: Path) -> Path:
    """A run's folder with the checkpoints of iterations 1, 2 and 3, of which the last lacks a stage."""
    trainer = ReferenceTrainer(RunConfig(model=MODEL), Plan(STAGES, PATHS, {}, (0.0,) * 3, 0.0, 0.0), 2, prepared)
    for iteration in range(3):
        trainer.train_iteration(iteration)
        trainer.save(tmp_path, Meta(iteration + 1, 3, prepared.vocabulary, "a", "0", "1" * 26, trainer.config))
    stage_file(checkpoint_folder(tmp_path, 3), 1).unlink()
    return tmp_path


def test_parts_go_down_to_the_first_that_is_whole(run: Path) -> None:
    parts = parts_in(run)
    assert [(part.meta.iteration, part.stages, part.missing) for part in parts] == [
        (3, (0, 2), (1,)),
        (2, (0, 1, 2), ()),
    ]
    assert [part.is_whole for part in parts] == [False, True]
    assert [part.meta.iteration for part in parts_in(run, 1)] == [3]
    assert [part.meta.iteration for part in parts_in(checkpoint_folder(run, 1))] == [1]
    assert parts_in(run / "nowhere") == []
    assert {part.meta.identity for part in parts} == {read_part(checkpoint_folder(run, 1)).meta.identity}  # type: ignore[union-attr]


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def take_another_iterations(file: Path) -> None:
    file.write_bytes((checkpoint_folder(file.parents[2], 1) / file.name).read_bytes())


@pytest.mark.parametrize("damage", [cut_short, take_another_iterations])
def test_an_unsound_file_is_named_unless_it_is_older_than_a_whole_one(
    run: Path, damage: Callable[[Path], None]
) -> None:
    damage(stage_file(checkpoint_folder(run, 3), 2))
    with pytest.raises(UserError, match=r"stage-2\.safetensors: .*; move .*iteration-000003 away to go on without it"):
        parts_in(run)
    for file in checkpoint_folder(run, 3).iterdir():
        file.unlink()
    cut_short(stage_file(checkpoint_folder(run, 1), 2))
    assert [part.meta.iteration for part in parts_in(run)] == [2]


@pytest.mark.parametrize(
    ("stage", "layers", "saved_layers", "expected"),
    [(0, 2, 2, [0]), (2, 2, 2, [2]), (1, 1, 2, [0]), (2, 1, 2, [1]), (1, 3, 2, [1, 2]), (0, 6, 2, [0, 1, 2])],
)
def test_a_stage_of_another_cut_lies_in_those_files(
    stage: int, layers: int, saved_layers: int, expected: list[int]
) -> None:
    assert stages_with(stage, layers, saved_layers, 3) == expected


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_no_other_file_is_needed_to_fill_a_stage(run: Path, prepared: Prepared, layers: int) -> None:
    config = ModelConfig(d_model=16, heads=2, context=16, layers_per_stage=layers)
    for number in range(6 // layers):
        stage, whole = (Stage(config, number, prepared.vocabulary, 0) for _ in range(2))
        folder = checkpoint_folder(run, 2)
        checkpoint = Checkpoint(folder, read_part(folder).meta)  # type: ignore[union-attr]
        load_stage(checkpoint, whole)
        kept = {file.name for file in checkpoint.files_for(stage)}
        away = {file: file.rename(file.with_suffix(".away")) for file in checkpoint.files if file.name not in kept}
        load_stage(checkpoint, stage)
        for file, there in away.items():
            there.rename(file)
        assert all(torch.equal(tensor, canonical_state(whole)[name]) for name, tensor in canonical_state(stage).items())


def test_the_newest_that_has_a_stage_is_found_whole_or_not(run: Path) -> None:
    def newest(layers: int, number: int, path: Path = run) -> int | None:
        found = newest_with(path, number, layers)
        return found.meta.iteration if found else None

    assert [newest(2, number) for number in range(3)] == [3, 2, 3]
    assert [newest(3, number) for number in range(2)] == [2, 2]
    assert [newest(2, number, checkpoint_folder(run, 2)) for number in range(3)] == [2, 2, 2]
    for done in (2, 3):
        stage_file(checkpoint_folder(run, done), 2).unlink()
    assert newest(2, 2) == 1
    assert newest_with(run / "nowhere", 0, 2) is None


def test_where_another_iteration_belongs(run: Path) -> None:
    assert folder_beside(run, 7) == checkpoint_folder(run, 7)
    assert folder_beside(checkpoint_folder(run, 3), 7) == checkpoint_folder(run, 7)


def test_files_of_machines_that_differ_in_their_own_fields_are_one(run: Path) -> None:
    file = stage_file(checkpoint_folder(run, 3), 2)
    with safe_open(file, "pt") as opened:
        text = opened.metadata()["skippipe"]
    assert '"device": "cpu"' in text
    save_file(load_file(file), file, {"skippipe": text.replace('"device": "cpu"', '"device": "cuda:1"')})
    assert parts_in(run)[0].stages == (0, 2)
