"""simplellm 0.0.2's TransformerBlock behind the call signature of transformers' LlamaDecoderLayer: every workaround."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from skippipe.errors import UserError

# Canonical (Hugging Face) tensor names of a decoder layer, and those of simplellm's block inside SimpleLLMLayer.
NAMES = {
    "self_attn.q_proj.weight": "block.attention.wq.weight",
    "self_attn.k_proj.weight": "block.attention.wk.weight",
    "self_attn.v_proj.weight": "block.attention.wv.weight",
    "self_attn.o_proj.weight": "block.attention.wo.weight",
    "mlp.gate_proj.weight": "block.feed_forward.w1.weight",
    "mlp.up_proj.weight": "block.feed_forward.w3.weight",
    "mlp.down_proj.weight": "block.feed_forward.w2.weight",
    "input_layernorm.weight": "block.attention_norm.weight",
    "post_attention_layernorm.weight": "block.ffn_norm.weight",
}
ROTATED = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")


@cache
def import_llamabase() -> ModuleType:
    """Import simplellm/llama/llamabase.py by its path.

    `import simplellm.llama` fails in 0.0.2: its llama.py imports `llamabase` as a top-level module.
    """
    package = importlib.util.find_spec("simplellm")
    if package is None or package.submodule_search_locations is None:
        raise UserError("model.blocks simplellm needs the package simplellm: pip install simplellm==0.0.2")
    path = Path(next(iter(package.submodule_search_locations))) / "llama" / "llamabase.py"
    spec = importlib.util.spec_from_file_location("simplellm_llamabase", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def feed_forward_arguments(d_model: int, hidden_width: int) -> dict[str, Any]:
    """Arguments that make simplellm's FeedForward exactly `hidden_width` wide.

    It computes int(multiplier * int(8 * d_model / 3)), rounded up to a multiple; the quarter outweighs rounding errors.
    """
    return {"multiple_of": 1, "ffn_dim_multiplier": (hidden_width + 0.25) / int(8 * d_model / 3)}


class SimpleLLMLayer(nn.Module):
    """One simplellm TransformerBlock, called as transformers' LlamaDecoderLayer is."""

    def __init__(self, d_model: int, heads: int, hidden_width: int, norm_epsilon: float) -> None:
        super().__init__()
        # The device argument is unused by the block, but its default is "cuda"; rotations are given at each call.
        self.block = import_llamabase().TransformerBlock(
            d_model,
            heads,
            freq_cis=None,
            norm_eps=norm_epsilon,
            device="cpu",
            **feed_forward_arguments(d_model, hidden_width),
        )

    def forward(
        self,
        x_BTD: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Hidden states (B, T, D) to hidden states, causally.

        `position_embeddings`: cosines and sines (1, T, head width) in transformers' half-split layout.
        Raises UserError for a key-value cache: the block has none.
        """
        if cache is not None or attention_mask is not None:
            raise UserError("model.blocks simplellm has no key-value cache: load the weights into blocks transformers")
        cos, sin = (table[0, :, : table.shape[-1] // 2].float() for table in position_embeddings)
        # RoPE multiplies (B, T, heads, head width / 2) by this: without the 1 it would pair positions with heads.
        rotations = torch.complex(cos, sin)[:, None]
        x_BTD = x_BTD + self.attend(self.block.attention_norm(x_BTD), rotations)
        y_BTD: Tensor = x_BTD + self.block.feed_forward(self.block.ffn_norm(x_BTD))
        return y_BTD

    def attend(self, x_BTD: Tensor, rotations: Tensor) -> Tensor:
        """The block's causal attention by torch's kernel, as it keeps all scores (B, heads, T, T) for backward.

        `rotations`: (T, 1, head width / 2) complex.
        """
        attention = self.block.attention
        linears = attention.wq, attention.wk, attention.wv
        q, k, v = (linear(x_BTD).unflatten(-1, (attention.num_heads, -1)) for linear in linears)
        q, k = import_llamabase().apply_rotary_emb(q, k, freqs_cis=rotations)
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed_BTD: Tensor = attention.wo(mixed.transpose(1, 2).flatten(2))
        return mixed_BTD


def to_simplellm(canonical: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """A layer's canonical tensors, by their names within the layer, as state of SimpleLLMLayer."""
    return {NAMES[name]: interleave(tensor, heads) if name in ROTATED else tensor for name, tensor in canonical.items()}


def from_simplellm(state: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """The inverse of `to_simplellm`."""
    return {name: split_halves(state[own], heads) if name in ROTATED else state[own] for name, own in NAMES.items()}


def interleave(weight: Tensor, heads: int) -> Tensor:
    """Reorder a projection's rows within each head: rotary pairs (i, i + half) become neighbours (2i, 2i + 1).

    The inverse of `permute` in transformers' convert_llama_weights_to_hf.py.
    """
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def split_halves(weight: Tensor, heads: int) -> Tensor:
    """The inverse of `interleave`."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
