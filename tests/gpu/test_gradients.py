"""Gradients that a GPU computes are those of one CPU process in fp32, within the rounding of what it computes in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from skippipe.config import ModelConfig, OptimizerConfig, RunConfig
from skippipe.data.prepared import Prepared
from skippipe.reference import ReferenceTrainer
from skippipe.schedule import Plan
from tests.model.test_precision import BF16_ROUNDING, PATHS, difference, gradients

FP32_TOLERANCE = 1e-4
"""Sums in another order; products on the GPU are fp32's own, TF32 is off by default."""
CONFIG = RunConfig(
    model=ModelConfig(d_model=256, heads=4, context=128, layers_per_stage=2), optimizer=OptimizerConfig(clip=1e9)
)


def trainer(config: RunConfig, prepared: Prepared) -> ReferenceTrainer:
    return ReferenceTrainer(config, Plan(((0, 1), (2,), (3,)), PATHS, {}, (0.0,) * 3, 0.0, 0.0), 2, prepared)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True], ids=["keep", "recompute"])
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compile"])
def test_gradients_are_those_of_plain_training_on_a_cpu(
    prepared: Prepared, precision: str, recompute: bool, compiled: bool
) -> None:
    torch.compiler.reset()
    computing = {"precision": precision, "recompute": recompute, "compile": compiled, "device": "cuda:0"}
    loss, found = gradients(trainer(replace(CONFIG, **computing), prepared))  # type: ignore[arg-type]
    plain_loss, plain = gradients(trainer(CONFIG, prepared))
    tolerance = FP32_TOLERANCE if precision == "fp32" else 4 * BF16_ROUNDING
    assert loss == pytest.approx(plain_loss, rel=tolerance)
    assert found.keys() == plain.keys()
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    errors = {name: difference(found[name].cpu(), plain[name]) for name in plain}
    assert max(errors.values()) < tolerance, max(errors, key=errors.__getitem__)


def test_one_kernel_of_adamw_updates_all(prepared: Prepared) -> None:
    trained = trainer(replace(CONFIG, device="cuda:0"), prepared)
    assert all(optimizer.adamw.defaults["fused"] for optimizer in trained.optimizers)
    losses = [trained.train_iteration(iteration) for iteration in range(6)]
    assert losses[-1] < losses[0]
