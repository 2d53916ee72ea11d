"""bf16 and recomputation: which gradients they give, what stays fp32, and what a forward keeps for backward."""

import re
import shutil
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from transformers import LlamaForCausalLM

from skippipe.cli.machine import Verdict, look_at_device
from skippipe.config import ModelConfig, OptimizerConfig, RunConfig
from skippipe.model.blocks import llama_config
from skippipe.model.stage import Stage, canonical_state, canonical_tensors
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Plan

KINDS = ("transformers", "simplellm")
PATHS = ((0, 2, 3), (1, 3), (0, 3, 2))
BF16_ROUNDING = 2.0**-8
"""Largest relative error of a number that is rounded to bf16."""


def trainer_of(prepared, kind, precision="fp32", recompute=False, **fields):
    model = ModelConfig(d_model=64, heads=4, context=32, layers_per_stage=2, blocks=kind)
    config = RunConfig(model=model, precision=precision, recompute=recompute, **fields)
    return ReferenceTrainer(config, Plan(((0, 1), (2,), (3,)), PATHS, {}, (0.0,) * 3, 0.0, 0.0), 2, prepared)


def gradients(trainer):
    """Gradients of an iteration's first step, by canonical name, and its loss."""
    # No gradient is that long, and the first step of a warm-up moves nothing.
    loss = trainer.train_iteration(0)
    found = {}
    for stage in trainer.stages:
        own = {name: parameter.grad.clone() for name, parameter in stage.named_parameters()}
        found |= canonical_tensors(stage, own)
    return loss, found


def difference(gradient, exact):
    return float((gradient - exact).norm() / exact.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True], ids=["keep", "recompute"])
def test_gradients_are_those_of_plain_training(prepared, kind, precision, recompute):
    (loss, found), (plain_loss, plain) = (
        gradients(trainer_of(prepared, kind, *computing, optimizer=OptimizerConfig(clip=1e9)))
        for computing in ((precision, recompute), ("fp32", False))
    )
    assert found.keys() == plain.keys()
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    if precision == "fp32":
        assert loss == plain_loss
        assert all(torch.equal(found[name], plain[name]) for name in plain)
        return
    # Errors of some roundings one after the other, as independent as those of a sum are.
    assert loss == pytest.approx(plain_loss, rel=BF16_ROUNDING)
    errors = {name: difference(found[name], plain[name]) for name in plain}
    assert max(errors.values()) < 4 * BF16_ROUNDING, max(errors, key=errors.get)
    assert min(errors.values()) > BF16_ROUNDING / 100


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_and_recomputed_layers_give_the_gradients_of_plain_ones(prepared):
    config = RunConfig(model=ModelConfig(d_model=64, heads=4, context=32), optimizer=OptimizerConfig(clip=1e9))
    # Each layer takes seconds to compile.
    plan = Plan(((0,), (1,)), ((0, 1),), {}, (0.0,) * 2, 0.0, 0.0)
    compiled = ReferenceTrainer(replace(config, compile=True, recompute=True), plan, 2, prepared)
    (loss, found), (plain_loss, plain) = gradients(compiled), gradients(ReferenceTrainer(config, plan, 2, prepared))
    layers = [layer for stage in compiled.stages for layer in stage.layers]
    # Private, but nothing else tells that a layer is compiled.
    assert all(layer._compiled_call_impl is not None for layer in layers)
    assert loss == pytest.approx(plain_loss, rel=1e-6)
    assert found.keys() == plain.keys()
    assert max(difference(found[name], plain[name]) for name in plain) < 1e-5
    before = counters["frames"]["total"]
    with torch.no_grad(), compiled.stages[1].uncompiled():
        compiled.stages[1](torch.zeros(3, 32, 64))
    assert counters["frames"]["total"] == before > 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_whether_layers_can_be_compiled_is_known_before_the_start():
    # Here, where the compiler has been loaded, which takes seconds.
    config = RunConfig(compile=True)
    for cxx, verdict in (("/nowhere", Verdict.STOP), ("g++", Verdict.FINE)):
        torch.compiler.reset()
        with inductor.patch({"cpp.cxx": (cxx,)}):
            found = look_at_device(config)
        assert found.verdict is verdict, found.text
        if verdict is Verdict.STOP:
            assert re.fullmatch(r"compile: torch can't compile for cpu here \(.*compiler.*/nowhere.*\); .*", found.text)
            assert "TORCHDYNAMO" not in found.text


def test_what_is_compiled_before_the_run_leaves_no_gradient():
    stage = Stage(ModelConfig(context=16), 0, 50, 0)
    stage.warm_up(2)
    assert all(parameter.grad is None for parameter in stage.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_in_bf16_changes_no_bit(prepared, kind):
    (loss, found), (kept_loss, kept) = (gradients(trainer_of(prepared, kind, "bf16", again)) for again in (True, False))
    assert loss == kept_loss
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_bf16_is_what_autocast_makes_of_transformers_own_model():
    config = ModelConfig(d_model=64, heads=4, context=24, layers_per_stage=2)
    stages = [Stage(config, number, 97, 3, "bf16") for number in range(2)]
    llama = LlamaForCausalLM(llama_config(config, 2, 97))
    llama.load_state_dict({name: tensor.clone() for stage in stages for name, tensor in canonical_state(stage).items()})
    tokens = torch.randint(97, (2, 24), generator=torch.Generator().manual_seed(1))
    targets = tokens.roll(-1, 1)
    loss = stages[0].loss(stages[1](stages[0](tokens)), targets)
    loss.backward()
    with torch.autocast("cpu", torch.bfloat16):
        logits = llama(tokens).logits
        expected = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    named = dict(llama.named_parameters())
    for stage in stages:
        own = {name: parameter.grad for name, parameter in stage.named_parameters()}
        for name, gradient in canonical_tensors(stage, own).items():
            assert difference(gradient, named[name].grad) < 1e-6, name


@pytest.mark.parametrize("kind", KINDS)
def test_training_in_bf16_keeps_weights_moments_and_what_stages_send_in_fp32(prepared, kind):
    trainer = trainer_of(prepared, kind, "bf16", True, optimizer=OptimizerConfig(1e-2, 0))
    losses = [trainer.train_iteration(iteration) for iteration in range(4)]
    assert losses[-1] < losses[0]
    for stage, optimizer in zip(trainer.stages, trainer.optimizers, strict=True):
        kept = [*stage.parameters(), *optimizer.moments("exp_avg"), *optimizer.moments("exp_avg_sq"), optimizer.flat]
        assert {tensor.dtype for tensor in kept} == {torch.float32}
    hidden_BTD = trainer.stages[0](torch.zeros(1, 4, dtype=torch.int64))
    assert hidden_BTD.dtype == trainer.stages[1](hidden_BTD).dtype == torch.float32


def kept_numbers(stage, x):
    """How many numbers a forward keeps for backward, weights left out."""
    own, kept = {parameter.data_ptr() for parameter in stage.parameters()}, {}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        left = stage(x)
    return sum(kept.values()), left


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_that_will_be_recomputed_keeps_its_layers_inputs_alone(kind):
    config = ModelConfig(d_model=64, heads=4, context=32, layers_per_stage=3, blocks=kind)
    x = torch.randn(2, 32, 64).requires_grad_()
    numbers, left = kept_numbers(Stage(config, 1, 97, 0, recompute=True), x)
    # Three inputs, and the rotary tables that all layers share.
    assert numbers <= 3 * x.numel() + 2 * 32 * 16
    assert kept_numbers(Stage(config, 1, 97, 0), x)[0] > 3 * 10 * x.numel()
    left.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_of_blocks_keep_no_scores_of_attention(kind):
    # Scores would be heads x context numbers a token.
    config = ModelConfig(d_model=32, heads=16, context=512, layers_per_stage=1, blocks=kind)
    x = torch.randn(1, 512, 32).requires_grad_()
    numbers, _ = kept_numbers(Stage(config, 1, 97, 0), x)
    assert numbers < 16 * 512 * 512
