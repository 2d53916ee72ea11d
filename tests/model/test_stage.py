"""A stage's shard: the function it computes, the weights it starts from, and what it holds."""

import pytest
import torch
from transformers import DynamicCache, LlamaForCausalLM

from skippipe.config import ModelConfig
from skippipe.errors import UserError
from skippipe.model.blocks import llama_config
from skippipe.model.stage import Stage, canonical_state, own_state

VOCABULARY = 97
KINDS = ("transformers", "simplellm")


def build(stages, vocabulary=VOCABULARY, seed=3, **settings):
    config = ModelConfig(**{"d_model": 32, "heads": 4, "context": 24, **settings})
    return [Stage(config, stage, vocabulary, seed) for stage in range(stages)]


def sequences(samples=2, tokens=24):
    return torch.randint(VOCABULARY, (samples, tokens), generator=torch.Generator().manual_seed(1))


def run(stages, x):
    for stage in stages:
        x = stage(x)
    return x


def all_weights(stages):
    return {name: tensor for stage in stages for name, tensor in canonical_state(stage).items()}


def gradients(stages):
    loss = stages[0].loss(run(stages, sequences()), sequences().roll(-1, 1))
    loss.backward()
    # In the weights' place, gradients come out under canonical names and in the canonical layout.
    for stage in stages:
        for parameter in stage.parameters():
            parameter.data = parameter.grad
    return loss.item(), all_weights(stages)


@pytest.mark.parametrize("settings", [{}, {"feed_forward": 85}, {"d_model": 24, "heads": 3, "layers_per_stage": 2}])
def test_both_kinds_of_blocks_start_as_the_same_function_with_the_same_gradients(settings):
    ours, papers = (build(3, blocks=kind, **settings) for kind in KINDS)
    assert torch.allclose(run(ours, sequences()), run(papers, sequences()), rtol=1e-5, atol=1e-5)
    (loss, ours), (papers_loss, papers) = gradients(ours), gradients(papers)
    assert loss == pytest.approx(papers_loss, rel=1e-5)
    assert ours.keys() == papers.keys()
    for name in ours:
        assert torch.allclose(ours[name], papers[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_weights_convert_between_the_kinds_of_blocks(source, target):
    trained = build(2, seed=1, blocks=source)
    others = build(2, seed=2, blocks=target)
    for stage in others:
        stage.load_state_dict(own_state(stage, all_weights(trained)))
    assert torch.allclose(run(trained, sequences()), run(others, sequences()), rtol=1e-5, atol=1e-5)
    for name, tensor in all_weights(others).items():
        assert torch.equal(tensor, all_weights(trained)[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_stages_in_order_are_a_llama_for_causal_language_modelling(kind):
    stages = build(3, blocks=kind, layers_per_stage=2, feed_forward=72)
    llama = LlamaForCausalLM(llama_config(stages[0].config, 3, VOCABULARY)).eval()
    llama.load_state_dict(all_weights(stages), strict=True)
    with torch.no_grad():
        logits = stages[0].logits(run(stages, sequences()))
        expected = llama(sequences()).logits
    assert torch.allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_do_not_depend_on_the_layout_or_on_global_random_state(kind):
    torch.manual_seed(1)
    one = all_weights(build(6, blocks=kind, layers_per_stage=1))
    torch.manual_seed(2)
    two = all_weights(build(3, blocks=kind, layers_per_stage=2))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    layers = [one[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in range(6)]
    assert all(not torch.equal(layers[0], layer) for layer in layers[1:])
    other_seed = all_weights(build(1, blocks=kind, seed=4))
    assert not torch.equal(other_seed["lm_head.weight"], one["lm_head.weight"])
    assert one["lm_head.weight"].std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_holds_its_own_parameters_only(kind):
    first, later = build(2, blocks=kind, layers_per_stage=2, d_model=32, feed_forward=64)
    layer = 4 * 32**2 + 3 * 32 * 64 + 2 * 32
    assert sum(parameter.numel() for parameter in later.parameters()) == 2 * layer
    assert sum(parameter.numel() for parameter in first.parameters()) == 2 * layer + 2 * VOCABULARY * 32 + 32
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in first.parameters())
    assert {name.split(".")[0] for name in later.state_dict()} == {"layers"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_the_papers_model_has_the_papers_number_of_parameters(kind):
    layer = Stage(ModelConfig(blocks=kind, d_model=1024, heads=16), 1, VOCABULARY, 0)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 16_779_264


@pytest.mark.parametrize("kind", KINDS)
def test_no_position_sees_a_later_one(kind):
    stages = build(2, blocks=kind)
    changed = sequences()
    changed[:, 15:] = 5
    before, after = run(stages, sequences()), run(stages, changed)
    assert torch.equal(before[:, :15], after[:, :15])
    assert not torch.equal(before[:, 15:], after[:, 15:])


def test_a_key_value_cache_gives_what_the_whole_sequence_gives():
    stages = build(2, layers_per_stage=2)
    caches = [DynamicCache() for _ in stages]
    whole = run(stages, sequences())
    pieces = []
    for first, last in ((0, 7), (7, 12), (12, 13), (13, 24)):
        x = sequences()[:, first:last]
        for stage, cache in zip(stages, caches, strict=True):
            x = stage(x, cache)
        pieces.append(x)
    assert torch.allclose(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match=r"model\.blocks simplellm has no key-value cache"):
        build(1, blocks="simplellm")[0](sequences(), DynamicCache())


def test_weights_of_another_shape_or_missing_ones_are_refused():
    first, later = build(2)
    with pytest.raises(ValueError, match=r"model\.layers\.1\.\S+: \(32, 32\) expected, nothing found"):
        own_state(later, canonical_state(first))
    with pytest.raises(ValueError, match=r"expected, .* found"):
        own_state(later, canonical_state(build(2, d_model=48)[1]))
