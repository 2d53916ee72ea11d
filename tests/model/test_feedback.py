"""What compressed syncs left out goes into checkpoints: resuming equals an unbroken run; a bad file ends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from skippipe.config import CompressionConfig, Encoding, ModelConfig, RunConfig
from skippipe.data.prepared import Prepared
from skippipe.errors import UserError
from skippipe.model.checkpoint import checkpoint_folder, find_latest
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.feedback import Replica, save_feedback
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Plan
from tests.cases import Layer, drives
from tests.faults import Fault

STAGES = ((0, 1), (2, 3), (4,))
PATHS = ((0, 2, 4), (1, 3, 4), (0, 3), (1, 2))


def trainer_of(prepared: Prepared, sync: Encoding, stages: tuple[tuple[int, ...], ...] = STAGES) -> ReferenceTrainer:
    model = ModelConfig(d_model=16, heads=2, context=16)
    config = RunConfig(model=model, compression=CompressionConfig(sync=sync))
    return ReferenceTrainer(config, Plan(stages, PATHS, {}, (0.0,) * 3, 0.0, 0.0), 2, prepared)


def train(trainer: ReferenceTrainer, iterations: range, run: Path | None = None) -> list[float]:
    """Losses of some iterations, each saved into the run if there is one."""
    losses = []
    for iteration in iterations:
        losses.append(trainer.train_iteration(iteration))
        if run is not None:
            meta = Meta(iteration + 1, 3, trainer.prepared.vocabulary, "ca-partial", "0", "1", trainer.config)
            trainer.save(run, meta)
    return losses


def files(run: Path, done: int) -> list[str]:
    return sorted(path.name for path in checkpoint_folder(run, done).glob("feedback-*"))


@pytest.mark.parametrize("sync", ["bf16", "int8"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(prepared: Prepared, tmp_path: Path, sync: Encoding) -> None:
    losses = train(trainer_of(prepared, sync), range(5), tmp_path)
    assert files(tmp_path, 3) == [f"feedback-{node}.safetensors" for node in range(4)]
    resumed = trainer_of(prepared, sync)
    resumed.resume(find_latest(checkpoint_folder(tmp_path, 3)))
    assert all(codec.left_out.abs().max() > 0 for _, codec in resumed.codecs())
    assert train(resumed, range(3, 5)) == losses[3:]
    forgetful = trainer_of(prepared, sync)
    forgetful.resume(find_latest(checkpoint_folder(tmp_path, 3)))
    for _, codec in forgetful.codecs():
        codec.left_out.zero_()
    train(forgetful, range(3, 5))
    # A loss may hide what so little changed.
    stages = zip(forgetful.stages, resumed.stages, strict=True)
    pairs = [pair for both in stages for pair in zip(*(stage.parameters() for stage in both), strict=True)]
    assert not all(torch.equal(*pair) for pair in pairs)


def test_files_go_with_their_checkpoints(prepared: Prepared, tmp_path: Path) -> None:
    train(trainer_of(prepared, "int8"), range(5), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        f"iteration-{done:06d}" for done in (3, 4, 5)
    ]
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_exact_run_has_no_such_files_and_begins_without(prepared: Prepared, tmp_path: Path) -> None:
    exact = trainer_of(prepared, "fp32")
    train(exact, range(3), tmp_path)
    assert not list(tmp_path.rglob("feedback-*"))
    assert not list(exact.codecs())


def rewrite(file: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the tensor of a file, and nothing of what it says of itself."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file({"left_out": change(load_file(file)["left_out"])}, file, metadata)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def take_another_nodes(file: Path) -> None:
    file.write_bytes(file.with_name("feedback-1.safetensors").read_bytes())


def take_another_iterations(file: Path) -> None:
    file.write_bytes((checkpoint_folder(file.parents[2], 2) / file.name).read_bytes())


def poison(file: Path) -> None:
    rewrite(file, lambda left_out: left_out.index_fill(0, torch.tensor([7]), float("nan")))


def shorten(file: Path) -> None:
    rewrite(file, lambda left_out: left_out[1:].clone())


def foreign(file: Path) -> None:
    save_file(load_file(file), file, {"skippipe": "[" * 100_000})


DAMAGE: dict[Fault, Callable[[Path], object]] = {
    Fault.FEEDBACK_MISSING: Path.unlink,
    Fault.FEEDBACK_TRUNCATED: truncate,
    Fault.FEEDBACK_OF_ANOTHER_NODE: take_another_nodes,
    Fault.FEEDBACK_OF_ANOTHER_ITERATION: take_another_iterations,
    Fault.FEEDBACK_NOT_FINITE: poison,
    Fault.FEEDBACK_OF_ANOTHER_SIZE: shorten,
    Fault.FEEDBACK_FOREIGN: foreign,
}


@drives(*Fault.at(Layer.FEEDBACK))
def test_a_file_that_will_not_do_is_named_and_its_node_begins_with_nothing(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    train(trainer_of(prepared, "int8"), range(3), tmp_path)
    DAMAGE[fault](checkpoint_folder(tmp_path, 3) / "feedback-0.safetensors")
    resumed = trainer_of(prepared, "int8")
    with caplog.at_level(logging.WARNING):
        resumed.resume(find_latest(tmp_path))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "feedback-0.safetensors: " + fault.line in lines[0]
    assert lines[0].endswith("node 0 begins with nothing left out of its syncs")
    lost = {replica.node: float(codec.left_out.abs().max()) for replica, codec in resumed.codecs()}
    assert lost[0] == 0 < min(lost[1], lost[2], lost[3])


def test_another_encoding_or_other_replicas_begin_with_nothing(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(trainer_of(prepared, "int8"), range(3), tmp_path)
    for other in (trainer_of(prepared, "bf16"), trainer_of(prepared, "int8", ((1, 0), (3, 2), (4,)))):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            other.resume(find_latest(tmp_path))
        assert len(caplog.records) == 4
        assert all(float(codec.left_out.abs().max()) == 0 for _, codec in other.codecs())


def test_a_dropped_iteration_leaves_what_was_left_out_as_it_was(prepared: Prepared, tmp_path: Path) -> None:
    trainer = trainer_of(prepared, "int8")
    train(trainer, range(2))
    before = {replica.node: codec.left_out.clone() for replica, codec in trainer.codecs()}
    sound = trainer.stages[0].state_dict()
    saved = {name: tensor.clone() for name, tensor in sound.items()}
    next(iter(trainer.stages[0].parameters())).data.fill_(float("inf"))
    trainer.train_iteration(2)
    assert trainer.dropped_in_a_row == 1
    trainer.stages[0].load_state_dict(saved)
    assert all(torch.equal(codec.left_out, before[replica.node]) for replica, codec in trainer.codecs())
    losses = train(trainer, range(3, 5))
    undisturbed = trainer_of(prepared, "int8")
    train(undisturbed, range(2))
    assert train(undisturbed, range(3, 5)) == losses


def test_what_cannot_be_saved_is_named(prepared: Prepared, tmp_path: Path) -> None:
    trainer = trainer_of(prepared, "int8")
    meta = Meta(1, 3, prepared.vocabulary, "ca-partial", "0", "1", replace(trainer.config, name="x"))
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(UserError, match=r"feedback-3\.safetensors: can't be saved \("):
        save_feedback(tmp_path, meta, Replica(1, 3, (2, 3)), torch.zeros(5))
