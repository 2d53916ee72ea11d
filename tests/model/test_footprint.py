"""What a forward keeps, and most that lives in a backward and a loss, is what the estimate says."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class Living(TorchDispatchMode):
    """Follows the bytes of tensors that are made while it is on, until nobody holds them; the stage's own left out."""

    def __init__(self, stage):
        super().__init__()
        own = [
            *stage.buffers(),
            *(tensor for parameter in stage.parameters() for tensor in (parameter, parameter.grad)),
        ]
        self.known = {tensor.untyped_storage()._cdata for tensor in own}
        self.bytes = self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                self.follow(tensor.untyped_storage())
        return made

    def follow(self, storage):
        """Count a tensor's memory as long as it is there."""
        place, size = storage._cdata, storage.nbytes()
        self.known.add(place)
        self.bytes += size
        self.most = max(self.most, self.bytes)
        weakref.finalize(storage, self.forget, place, size)

    def forget(self, place, size):
        """It is given back."""
        self.known.remove(place)
        self.bytes -= size


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True], ids=["keep", "recompute"])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_most_of_a_backward_and_of_a_loss_is_what_lives_in_them(precision, recompute, layers):
    model = ModelConfig(d_model=64, heads=4, context=128, layers_per_stage=layers)
    stage = Stage(model, 0, VOCABULARY, 0, precision, recompute)
    for parameter in stage.parameters():
        parameter.grad = torch.zeros_like(parameter)
    expected = footprint(RunConfig(model=model, precision=precision, recompute=recompute), 0, SAMPLES, VOCABULARY)
    tokens = torch.zeros(SAMPLES, 128, dtype=torch.int64)
    with Living(stage) as living:
        left = stage(tokens)
        gradient = torch.ones_like(left)
        beside = left.nbytes + gradient.nbytes
        left.backward(gradient)
    assert living.most - beside == pytest.approx(expected.kept + expected.backward, rel=0.08)
    del left, gradient
    entered = torch.randn(SAMPLES, 128, 64).requires_grad_()
    with Living(stage) as living:
        stage.loss(entered, tokens).backward()
    assert living.most == pytest.approx(expected.loss, rel=0.08)
