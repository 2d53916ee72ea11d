"""What a forward keeps is what the estimate says, to the byte but for tables that all layers share."""

import pytest
import torch

from skippipe.config import ModelConfig, RunConfig
from skippipe.model.footprint import footprint
from skippipe.model.stage import Stage

SAMPLES, VOCABULARY = 3, 211


def kept_bytes(stage, work):
    """Bytes that some work keeps for backward, weights left out."""
    own, kept = {parameter.untyped_storage().data_ptr() for parameter in stage.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        left = work()
    return sum(kept.values()), left


@pytest.mark.parametrize("blocks", ["transformers", "simplellm"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True], ids=["keep", "recompute"])
@pytest.mark.parametrize("number", [0, 1])
def test_kept_bytes_and_parameters_are_those_of_the_stage(blocks, precision, recompute, number):
    model = ModelConfig(d_model=64, heads=4, context=128, layers_per_stage=3, feed_forward=192, blocks=blocks)
    config = RunConfig(model=model, precision=precision, recompute=recompute)
    stage = Stage(model, number, VOCABULARY, 0, precision, recompute)
    expected = footprint(config, number, SAMPLES, VOCABULARY)
    assert expected.parameters == sum(parameter.numel() for parameter in stage.parameters())
    tokens = torch.zeros(SAMPLES, 128, dtype=torch.int64)
    entered = torch.randn(SAMPLES, 128, 64).requires_grad_() if number else tokens
    kept, left = kept_bytes(stage, lambda: stage(entered))
    assert expected.activation == left.nbytes
    assert kept == pytest.approx(expected.kept, rel=0.03)
    left.sum().backward()
