"""The learning rate over a run, against transformers' schedules; what decays; that resuming goes on with both."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
)

from skippipe.cli.run import say_where_it_goes_on
from skippipe.cli.saved import find_checkpoint
from skippipe.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from skippipe.data.batches import prepare
from skippipe.errors import UserError
from skippipe.model.checkpoint import checkpoint_folder, find_latest
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.optimizer import StageOptimizer, learning_rate
from skippipe.model.stage import Stage, canonical_state
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Plan
from tests.small_schedule import small_schedule

PEAK, FINAL, ITERATIONS = 0.5, 0.05, 23


def theirs(make, *arguments, **more):
    """The rate of each iteration by a scheduler of transformers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = make(optimizer, *arguments, **more)
    rates = []
    for _ in range(ITERATIONS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 7, ITERATIONS + 2])
@pytest.mark.parametrize("kind", ["constant", "cosine to 0", "cosine to a tenth"])
def test_the_learning_rate_is_that_of_transformers(kind, warmup):
    decay, _, final = kind.partition(" to ")
    config = OptimizerConfig(PEAK, warmup, decay=decay, final_learning_rate=FINAL if final == "a tenth" else 0.0)
    expected = {
        "constant": lambda: theirs(get_constant_schedule_with_warmup, warmup),
        "cosine to 0": lambda: theirs(get_cosine_schedule_with_warmup, warmup, ITERATIONS),
        "cosine to a tenth": lambda: theirs(
            get_cosine_with_min_lr_schedule_with_warmup, warmup, ITERATIONS, min_lr=FINAL
        ),
    }[kind]()
    rates = [learning_rate(config, iteration, ITERATIONS) for iteration in range(ITERATIONS)]
    assert rates == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert rates[0] == (0.0 if warmup else PEAK)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay": "cosine", "final_learning_rate": 1.0}, "final_learning_rate must lie between 0 and learning_rate"),
        ({"decay": "cosine", "final_learning_rate": -1e-9}, "final_learning_rate must lie between 0 and"),
        ({"final_learning_rate": 1e-5}, "final_learning_rate needs decay cosine"),
    ],
)
def test_final_rates_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**fields)


@pytest.mark.parametrize("blocks", ["transformers", "simplellm"])
def test_matrices_decay_and_norms_and_the_embedding_do_not(blocks):
    stage = Stage(ModelConfig(d_model=16, heads=2, context=8, blocks=blocks), 0, 50, 0)
    before = {name: tensor.clone() for name, tensor in canonical_state(stage).items()}
    optimizer = StageOptimizer(stage, OptimizerConfig(0.1, 0, weight_decay=0.5), ITERATIONS)
    # Without gradients nothing but the decay moves a weight.
    optimizer.step(0, 0.0)
    for name, tensor in canonical_state(stage).items():
        kept = "norm" in name or "embed" in name
        assert torch.allclose(tensor, before[name] * (1.0 if kept else 0.95), rtol=1e-6, atol=0.0), name
        assert kept == torch.equal(tensor, before[name]), name


def test_the_first_step_of_a_warm_up_moves_no_weight_but_begins_the_moments():
    stage = Stage(ModelConfig(d_model=16, heads=2, context=8), 1, 50, 0)
    before = {name: tensor.clone() for name, tensor in canonical_state(stage).items()}
    optimizer = StageOptimizer(stage, OptimizerConfig(warmup_iterations=2, weight_decay=0.1), ITERATIONS)
    optimizer.flat.fill_(1e-3)
    optimizer.step(0, 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in canonical_state(stage).items())
    assert all(bool(moment.all()) for moment in optimizer.moments("exp_avg"))
    optimizer.step(1, 0.0)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in canonical_state(stage).items())


@pytest.mark.parametrize("blocks", ["transformers", "simplellm"])
def test_a_resumed_run_goes_on_with_cosine_and_decay_bit_for_bit(tmp_path, capsys, blocks):
    (tmp_path / "text.txt").write_text("".join(f"line {i} of {i * i % 97} words\n" for i in range(1000)))
    data = DataConfig(source="files", paths=(str(tmp_path / "text.txt"),), vocabulary=300, cache=str(tmp_path))
    model = ModelConfig(d_model=16, heads=2, context=16, blocks=blocks)
    optimizer = OptimizerConfig(1e-2, 1, "cosine", 1e-3, weight_decay=0.3)
    config, prepared = RunConfig(model=model, data=data, optimizer=optimizer, iterations=5), prepare(data)
    plan = Plan(((0,), (1,), (2,)), ((0, 1, 2),), {}, (0.0,) * 3, 0.0, 0.0)

    def trainer(iterations):
        return ReferenceTrainer(dataclasses.replace(config, iterations=iterations), plan, 2, prepared)

    unbroken = trainer(5)
    losses = [unbroken.train_iteration(iteration) for iteration in range(3)]
    unbroken.save(tmp_path, Meta(3, 3, prepared.vocabulary, "ca-partial", "0" * 64, "1" * 26, config))
    losses += [unbroken.train_iteration(iteration) for iteration in (3, 4)]
    resumed, longer = trainer(5), trainer(50)
    for other in (resumed, longer):
        other.resume(find_latest(checkpoint_folder(tmp_path, 3)))
    assert [resumed.train_iteration(iteration) for iteration in (3, 4)] == losses[3:]
    # Another number of iterations is another cosine, and the user is told.
    assert [longer.train_iteration(iteration) for iteration in (3, 4)] != losses[3:]
    for own, said in ((resumed.config, ""), (longer.config, "of 5 iterations; the cosine now ends after 50")):
        say_where_it_goes_on(find_checkpoint(tmp_path, own, small_schedule(), "baseline", prepared), own, prepared, 1)
        errors = capsys.readouterr().err
        assert said in errors
        assert bool(errors) == bool(said)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["task", "sync", "loss"]), max_size=12))
def test_a_sync_that_begins_again_has_all_that_tasks_have_added(events):
    optimizer = StageOptimizer(torch.nn.Linear(2, 1), OptimizerConfig(), 1)
    for iteration in range(2):
        optimizer.zero()
        wanted = torch.zeros_like(optimizer.flat)
        for event in events:
            if event == "task":
                # None comes while a sync is under way.
                optimizer.undo_sync()
                optimizer.flat += 1
                wanted += 1
            elif event == "sync":
                optimizer.undo_sync()
                optimizer.begin_sync()
                optimizer.flat.mul_(-7).add_(iteration)
            else:
                optimizer.undo_sync()
        optimizer.undo_sync()
        assert torch.equal(optimizer.flat, wanted)
