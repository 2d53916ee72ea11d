"""Checkpoints: resuming equals an unbroken run, in any layout; unsound ones are refused, unfinished ones ignored."""

import dataclasses
import json
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from skippipe.config import DataConfig, ModelConfig, RunConfig
from skippipe.errors import UserError
from skippipe.model.checkpoint import checkpoint_folder, find_latest, load_stages, stage_file
from skippipe.model.checkpoint_meta import Meta, read_meta
from skippipe.model.stage import canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Plan
from tests.attacks import Attack
from tests.cases import Layer, drives
from tests.faults import Fault

FULL = ((0, 2, 3), (1, 2, 3), (0, 2, 3), (1, 2, 3))
PARTIAL = ((0, 2), (1, 3), (0, 3), (1, 2))


def plan_of(paths, stages=((0, 1), (2,), (3,))):
    return Plan(stages, paths, {}, (0.0,) * len(stages), 0.0, 0.0)


def trainer_of(prepared, paths=PARTIAL, **model):
    config = RunConfig(model=ModelConfig(**{"d_model": 16, "heads": 2, "context": 16, **model}))
    return ReferenceTrainer(config, plan_of(paths), 2, prepared)


def meta_of(trainer, iteration):
    stages, vocabulary = len(trainer.stages), trainer.prepared.vocabulary
    return Meta(iteration, stages, vocabulary, "ca-partial", "0" * 64, "1" * 26, trainer.config)


def train_and_save(run, trainer, last=4, every=2):
    losses = []
    for iteration in range(last):
        losses.append(trainer.train_iteration(iteration))
        if (iteration + 1) % every == 0:
            trainer.save(run, meta_of(trainer, iteration + 1))
    return losses


def weights(stages):
    return {name: tensor for stage in stages for name, tensor in canonical_state(stage).items()}


@pytest.mark.parametrize("blocks", ["transformers", "simplellm"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(prepared, tmp_path, blocks):
    unbroken = trainer_of(prepared, blocks=blocks)
    losses = train_and_save(tmp_path, unbroken, last=4, every=2)
    resumed = trainer_of(prepared, blocks=blocks)
    checkpoint = find_latest(checkpoint_folder(tmp_path, 2))
    assert (checkpoint.meta.iteration, checkpoint.meta.config) == (2, unbroken.config)
    resumed.resume(checkpoint)
    assert [resumed.train_iteration(iteration) for iteration in (2, 3)] == losses[2:]
    for name, tensor in weights(resumed.stages).items():
        assert torch.equal(tensor, weights(unbroken.stages)[name]), name


def test_another_setting_and_another_layout_of_the_same_model_resume(prepared, tmp_path):
    first = trainer_of(prepared, layers_per_stage=2)
    train_and_save(tmp_path, first)
    checkpoint = find_latest(tmp_path)
    setting = trainer_of(prepared, FULL, layers_per_stage=2)
    setting.resume(checkpoint)
    config = RunConfig(model=ModelConfig(d_model=16, heads=2, context=16, layers_per_stage=3, blocks="simplellm"))
    layout = ReferenceTrainer(config, plan_of(((0, 2), (1, 2)), ((0, 1), (2,))), 2, prepared)
    layout.resume(checkpoint)
    for resumed in (setting, layout):
        assert weights(resumed.stages).keys() == weights(first.stages).keys()
        assert all(torch.equal(tensor, weights(first.stages)[name]) for name, tensor in weights(resumed.stages).items())
    expected = first.train_iteration(4)
    assert [resumed.train_iteration(4) for resumed in (setting, layout)] == pytest.approx([expected] * 2, rel=0.02)


def test_a_loaded_model_is_the_trained_one(prepared, tmp_path):
    trainer = trainer_of(prepared)
    train_and_save(tmp_path, trainer)
    loaded = load_stages(find_latest(tmp_path))
    assert all(torch.equal(tensor, weights(trainer.stages)[name]) for name, tensor in weights(loaded).items())


def test_a_checkpoint_that_was_not_finished_is_passed_over(prepared, tmp_path):
    train_and_save(tmp_path, trainer_of(prepared))
    newest = checkpoint_folder(tmp_path, 4)
    stage_file(newest, 1).rename(newest / ".stage-1.safetensors.tmp")
    assert find_latest(tmp_path).meta.iteration == 2
    stage_file(checkpoint_folder(tmp_path, 2), 0).unlink()
    with pytest.raises(UserError, match="no complete checkpoint"):
        find_latest(tmp_path)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file):
    file.write_bytes(b"")


def cut_the_header(file):
    file.write_bytes(file.read_bytes()[:20])


def take_another_iterations(file):
    file.write_bytes((checkpoint_folder(file.parents[2], 2) / file.name).read_bytes())


def take_another_stage(file):
    file.write_bytes(stage_file(file.parent, 2).read_bytes())


DAMAGE = {
    Fault.STAGE_TRUNCATED: truncate,
    Fault.STAGE_EMPTY: empty,
    Fault.STAGE_HEADER_CUT: cut_the_header,
    Fault.STAGE_OF_ANOTHER_ITERATION: take_another_iterations,
    Fault.STAGE_OF_ANOTHER_NUMBER: take_another_stage,
}


@drives(*Fault.at(Layer.CHECKPOINT))
def test_an_unsound_file_is_named_and_the_checkpoint_before_it_offered(prepared, tmp_path, fault):
    train_and_save(tmp_path, trainer_of(prepared))
    DAMAGE[fault](stage_file(checkpoint_folder(tmp_path, 4), 1))
    remedy = "resume from the one before it: .*iteration-000002$"
    with pytest.raises(UserError, match=rf"stage-1\.safetensors: {fault.line}.*{remedy}"):
        find_latest(tmp_path)
    assert find_latest(checkpoint_folder(tmp_path, 2)).meta.iteration == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"d_model": 32}, "model.d_model: 16"),
        ({"layers_per_stage": 2}, "layers in all: 3 saved, 6"),
        ({"feed_forward": 40}, "model.feed_forward: 64 saved, 40"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(prepared, tmp_path, change, named):
    trainer = trainer_of(prepared)
    train_and_save(tmp_path, trainer)
    with pytest.raises(UserError, match=named):
        trainer_of(prepared, **change).resume(find_latest(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        find_latest(tmp_path / "nowhere")


def test_old_checkpoints_make_room_for_new_ones(prepared, tmp_path):
    trainer = trainer_of(prepared)
    train_and_save(tmp_path, trainer, last=5, every=1)
    kept = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert kept == ["iteration-000003", "iteration-000004", "iteration-000005"]
    assert find_latest(tmp_path / "checkpoints" / kept[0]).meta.iteration == 3


def test_rotation_counts_iterations_as_numbers_beyond_a_million(prepared, tmp_path):
    trainer = trainer_of(prepared)
    trainer.train_iteration(0)
    for done in (999_998, 999_999, 1_000_000, 1_000_001):
        trainer.save(tmp_path, meta_of(trainer, done))
    kept = {folder.name for folder in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"iteration-999999", "iteration-1000000", "iteration-1000001"}
    assert find_latest(tmp_path).meta.iteration == 1_000_001
    assert find_latest(checkpoint_folder(tmp_path, 999_999)).meta.iteration == 999_999


def test_what_a_full_disk_left_half_written_is_removed(prepared, tmp_path):
    trainer = trainer_of(prepared)
    train_and_save(tmp_path, trainer, last=2, every=2)
    half = checkpoint_folder(tmp_path, 1)
    half.mkdir()
    for name in (".stage-0.safetensors.tmp", ".stage-2.safetensors.tmp", ".tokenizer.model.tmp"):
        (half / name).write_bytes(b"half")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(UserError, match=r"iteration-000003: stage 0 can't be saved \("):
            trainer.save(tmp_path, meta_of(trainer, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(checkpoint_folder(tmp_path, 3).glob("*stage*"))
    assert find_latest(tmp_path).meta.iteration == 2
    trainer.save(tmp_path, meta_of(trainer, 4))
    assert not list(tmp_path.rglob("*.tmp"))


def rewrite(file, change):
    """Change what a stage's file says of itself."""
    with safe_open(file, "pt") as opened:
        document = json.loads(opened.metadata()["skippipe"])
    change(document)
    save_file(load_file(file), file, {"skippipe": json.dumps(document)})


def test_stages_saved_on_machines_of_other_addresses_and_devices_are_one_checkpoint(prepared, tmp_path):
    train_and_save(tmp_path, trainer_of(prepared))
    file = stage_file(checkpoint_folder(tmp_path, 4), 1)
    theirs = {"device": "cuda:1", "threads": 3, "recompute": True, "runs": "elsewhere"}

    def move(document):
        document["config"].update(theirs)
        document["config"]["peers"].update(host="0.0.0.0", first_port=4000)
        document["config"]["model"].update(init_from="/their/folder")

    rewrite(file, move)
    assert find_latest(tmp_path).meta.iteration == 4
    rewrite(file, lambda document: document.update(run="2" * 26))
    with pytest.raises(UserError, match="from another run or iteration"):
        find_latest(tmp_path)


@drives(*Attack.at(Layer.CHECKPOINT))
def test_what_a_strangers_checkpoint_says_is_typed_and_bounded(prepared, tmp_path, attack):
    train_and_save(tmp_path, trainer_of(prepared))
    file = stage_file(checkpoint_folder(tmp_path, 4), 1)
    rewrite(file, lambda document: document.update(attack.what))
    with pytest.raises(UserError, match=attack.outcome) as raised:
        read_meta(file)
    assert len(str(raised.value)) < 500


@drives(*Attack.at(Layer.NUMBERS))
def test_numbers_that_would_spoil_the_weights_are_not_loaded(prepared, tmp_path, attack):
    stage, name, value = attack.what
    trainer = trainer_of(prepared)
    train_and_save(tmp_path, trainer)
    file = stage_file(checkpoint_folder(tmp_path, 4), stage)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    tensors[name].view(-1)[0] = value
    save_file(tensors, file, metadata)
    with pytest.raises(UserError, match=attack.outcome):
        trainer.resume(find_latest(tmp_path))


def test_everything_of_the_configuration_comes_back(prepared, tmp_path):
    trainer = trainer_of(prepared)
    trainer.config = dataclasses.replace(trainer.config, name="a", seed=5, data=DataConfig(paths=("x", "y")))
    trainer.train_iteration(0)
    trainer.save(tmp_path, meta_of(trainer, 1))
    assert find_latest(tmp_path).meta == meta_of(trainer, 1)
