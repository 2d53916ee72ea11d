"""Starting a run's weights from a local Hugging Face LLaMA folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.models.llama.configuration_llama import LlamaConfig

from skippipe.config import ModelConfig
from skippipe.errors import UserError
from skippipe.fields import user_path
from skippipe.model.blocks import NORM_EPSILON, ROPE_THETA


def check_llama_folder(config: ModelConfig, stages: int, vocabulary: int) -> None:
    """Refuse a model.init_from whose model is another one than the run's: UserError names the first difference."""
    assert config.init_from is not None
    folder = user_path(config.init_from, "model.init_from")
    where = f"model.init_from: {folder / 'config.json'}"
    try:
        if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") != "llama":
            raise UserError(f"{where}: not a LLaMA")
        theirs = LlamaConfig.from_pretrained(folder)
    except OSError as error:
        raise UserError(f"{where}: can't be read ({error.strerror or error})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        raise UserError(f"{where}: not a JSON object") from None
    rotary = theirs.rope_parameters
    fields = {
        "hidden_size": (theirs.hidden_size, config.d_model),
        "intermediate_size": (theirs.intermediate_size, config.hidden_width),
        "num_attention_heads": (theirs.num_attention_heads, config.heads),
        "num_key_value_heads": (theirs.num_key_value_heads, config.heads),
        "num_hidden_layers": (theirs.num_hidden_layers, stages * config.layers_per_stage),
        "vocab_size": (theirs.vocab_size, vocabulary),
        "rms_norm_eps": (theirs.rms_norm_eps, NORM_EPSILON),
        "rope_theta": (rotary.get("rope_theta"), ROPE_THETA),
        "rope_type": (rotary.get("rope_type"), "default"),
    }
    for name, (found, wanted) in fields.items():
        if found != wanted:
            raise UserError(f"{where}: {name} is {found}, this run has {wanted}")


def read_llama_folder(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of these names and shapes from a Hugging Face LLaMA's safetensors, in fp32; a tied head is the embedding.

    UserError if a tensor is missing or has another shape.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"model.init_from: {folder} has no .safetensors file; give a local Hugging Face LLaMA folder")
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                held = set(opened.keys())
                found |= {name: opened.get_tensor(name).float() for name in shapes if name in held}
                if "lm_head.weight" in shapes and "model.embed_tokens.weight" in held:
                    found.setdefault("lm_head.weight", opened.get_tensor("model.embed_tokens.weight").float())
        except (SafetensorError, OSError) as error:
            raise UserError(f"model.init_from: {file}: {' '.join(str(error).split())[:120]}") from None
    for name, shape in shapes.items():
        held_shape = tuple(found[name].shape) if name in found else "nothing"
        if held_shape != shape:
            raise UserError(f"model.init_from: {folder}: {name}: {shape} expected, {held_shape} found")
    return found
