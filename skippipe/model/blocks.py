"""Decoder layers of both kinds, their rotary tables, and conversion between their weights and canonical ones."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from skippipe.config import ModelConfig
from skippipe.model import simplellm_adapter

NORM_EPSILON = 1e-5
ROPE_THETA = 10000.0
INITIAL_DEVIATION = 0.02


def llama_config(config: ModelConfig, stages: int, vocabulary: int) -> Any:
    """The transformers LlamaConfig of the whole model: `stages` times layers_per_stage decoder layers."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=config.d_model,
        intermediate_size=config.hidden_width,
        num_hidden_layers=stages * config.layers_per_stage,
        num_attention_heads=config.heads,
        head_dim=config.d_model // config.heads,
        max_position_embeddings=config.context,
        rms_norm_eps=NORM_EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )


def build_layers(config: ModelConfig, vocabulary: int) -> nn.ModuleList:
    """The decoder layers of one stage on the meta device, without storage: load weights with assign=True."""
    with torch.device("meta"):
        if config.blocks == "simplellm":
            width = config.hidden_width
            return nn.ModuleList(
                simplellm_adapter.SimpleLLMLayer(config.d_model, config.heads, width, NORM_EPSILON)
                for _ in range(config.layers_per_stage)
            )
        shard = llama_config(config, 1, vocabulary)
        return nn.ModuleList(LlamaDecoderLayer(shard, index) for index in range(config.layers_per_stage))


def rotary_tables(config: ModelConfig, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1, context, head width) of the rotary embedding, in transformers' half-split layout."""
    positions = torch.arange(config.context)[None]
    cos, sin = LlamaRotaryEmbedding(llama_config(config, 1, vocabulary))(torch.empty(0), positions)
    return cos, sin


def causal_mask(tokens: int, start: int, device: torch.device) -> Tensor | None:
    """Which of the `start` cached and `tokens` new positions each new one sees: (T, start + T), True where it does.

    None if attention works it out: without a cache it is causal, and a single token sees everything.
    """
    if start == 0 or tokens == 1:
        return None
    return torch.ones(tokens, start + tokens, dtype=torch.bool, device=device).tril(start)


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Canonical names within a decoder layer, and their shapes."""
    width, hidden = config.d_model, config.hidden_width
    return {
        **{f"self_attn.{name}_proj.weight": (width, width) for name in "qkvo"},
        "mlp.gate_proj.weight": (hidden, width),
        "mlp.up_proj.weight": (hidden, width),
        "mlp.down_proj.weight": (width, hidden),
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }


def initial_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """First values of a canonical tensor, fp32: ones for a norm, else normal with deviation 0.02 (as GPT-2 and LLaMA).

    They depend on seed and name (which has the layer's index) alone: any layout starts from the same model, and NumPy's
    generator, unlike torch's vectorised one, gives the same bits on every CPU, so that replicas start identical.
    """
    if len(shape) == 1:
        return torch.ones(shape)
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = numpy.random.Generator(numpy.random.PCG64(int.from_bytes(digest[:16], "little")))
    values = generator.standard_normal(math.prod(shape), dtype=numpy.float32)
    return torch.from_numpy(values).view(shape).mul_(INITIAL_DEVIATION)


def to_own(config: ModelConfig, canonical: dict[str, Tensor]) -> dict[str, Tensor]:
    """A layer's canonical tensors, by names within the layer, as state of a layer of the configured kind."""
    return simplellm_adapter.to_simplellm(canonical, config.heads) if config.blocks == "simplellm" else canonical


def to_canonical(config: ModelConfig, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_own`."""
    return simplellm_adapter.from_simplellm(own, config.heads) if config.blocks == "simplellm" else own
