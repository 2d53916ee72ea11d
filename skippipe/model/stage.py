"""One stage's shard of the LLaMA: stage 0 has embedding, layers, final norm and head, the others layers only."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from skippipe.config import ModelConfig, Precision
from skippipe.fields import user_path
from skippipe.model.blocks import (
    NORM_EPSILON,
    build_layers,
    causal_mask,
    initial_tensor,
    layer_shapes,
    rotary_tables,
    to_canonical,
    to_own,
)
from skippipe.model.llama_folder import read_llama_folder


class Stage(nn.Module):
    """The parameters that a node of one stage holds, and what it computes with them (paper, section 3)."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        config: ModelConfig,
        stage: int,
        vocabulary: int,
        seed: int,
        precision: Precision = "fp32",
        recompute: bool = False,
        compiled: bool = False,
    ) -> None:
        """Build stage number `stage` on the CPU, its weights in fp32, whatever the precision that it computes in.

        Its first weights are those of config.init_from, or depend on seed and layer index alone.
        """
        super().__init__()
        self.precision, self.recompute, self.compiled = precision, recompute, compiled
        self.config = config
        self.stage = stage
        self.vocabulary = vocabulary
        self.layers = build_layers(config, vocabulary)
        if stage == 0:
            with torch.device("meta"):
                self.embedding = nn.Embedding(vocabulary, config.d_model)
                self.norm = nn.RMSNorm(config.d_model, eps=NORM_EPSILON)
                self.head = nn.Linear(config.d_model, vocabulary, bias=False)
        shapes = canonical_shapes(self)
        if config.init_from is not None:
            weights = read_llama_folder(user_path(config.init_from, "model.init_from"), shapes)
        else:
            weights = {name: initial_tensor(name, shape, seed) for name, shape in shapes.items()}
        self.load_state_dict(own_state(self, weights), assign=True)
        cos, sin = rotary_tables(config, vocabulary)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        if compiled:
            import torch._inductor.config as inductor

            # It would start a process for each of the machine's cores, in every node.
            inductor.compile_threads = torch.get_num_threads()
            for layer in self.layers:
                # In place: parameters keep their names.
                layer.compile(dynamic=False)

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        """Token ids (B, T) int64 at stage 0, else hidden states (B, T, D) fp32, to hidden states (B, T, D) fp32.

        In bf16 too: what layers add to the residual stream is rounded, the stream itself is not.
        `cache` is this stage's own transformers DynamicCache at inference: x then continues what the cache has seen.
        """
        start = cache.get_seq_length() if cache is not None else 0
        tokens = x.shape[1]
        assert start + tokens <= self.config.context, f"{start + tokens} tokens in a context of {self.config.context}"
        positions = self.cos[:, start : start + tokens], self.sin[:, start : start + tokens]
        mask = causal_mask(tokens, start, x.device)
        with self.autocast():
            x_BTD = self.embedding(x) if self.stage == 0 else x
            for layer in self.layers:
                run = partial(layer, attention_mask=mask, cache=cache, position_embeddings=positions)
                if self.recompute and torch.is_grad_enabled():
                    # Layers draw no random numbers whose state would have to be kept.
                    x_BTD = checkpoint(run, x_BTD, use_reentrant=False, preserve_rng_state=False)
                else:
                    x_BTD = run(x_BTD)
        return x_BTD

    def warm_up(self, samples: int) -> None:
        """Compile what batches of so many sequences need of compiled layers; leaves no gradients."""
        device, shape = self.cos.device, (samples, self.config.context)
        hidden_BTD = torch.zeros(*shape, self.config.d_model, device=device, requires_grad=True)
        entered = hidden_BTD if self.stage else torch.zeros(shape, dtype=torch.int64, device=device)
        self(entered).sum().backward()
        self.zero_grad(set_to_none=True)

    def uncompiled(self) -> AbstractContextManager[None]:
        """Where layers run as they are: compiled ones would be compiled again for batches without gradients."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

    def autocast(self) -> torch.autocast:
        """What the stage computes in."""
        return torch.autocast(self.cos.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Hidden states (B, T, D) through final norm and head (stage 0 only) to logits (B, T, vocabulary)."""
        logits_BTV: Tensor = self.head(self.norm(hidden_BTD))
        return logits_BTV

    def loss(self, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats a token (stage 0 only) of hidden states (B, T, D) against token ids (B, T)."""
        with self.autocast():
            logits_NV = self.logits(hidden_BTD).flatten(0, 1)
            return nn.functional.cross_entropy(logits_NV.float(), targets_BT.flatten())


def layer_prefix(stage: Stage, local: int) -> str:
    """Canonical name of the stage's layer number `local`; layers count on from stage to stage."""
    return f"model.layers.{stage.stage * stage.config.layers_per_stage + local}."


def outer_names(stage: Stage) -> dict[str, str]:
    """Canonical names of what only stage 0 has, and the names in its state_dict."""
    if stage.stage:
        return {}
    return {
        "model.embed_tokens.weight": "embedding.weight",
        "model.norm.weight": "norm.weight",
        "lm_head.weight": "head.weight",
    }


def canonical_shapes(stage: Stage) -> dict[str, tuple[int, ...]]:
    """Canonical names and shapes of the stage's tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for canonical, own in outer_names(stage).items():
        shapes[canonical] = tuple(stage.get_parameter(own).shape)
    for local in range(len(stage.layers)):
        prefix = layer_prefix(stage, local)
        shapes |= {prefix + name: shape for name, shape in layer_shapes(stage.config).items()}
    return shapes


def canonical_state(stage: Stage) -> dict[str, Tensor]:
    """The stage's weights under the names and in the layout of transformers' LlamaForCausalLM, detached, not copied."""
    return canonical_tensors(stage, {name: parameter.detach() for name, parameter in stage.named_parameters()})


def canonical_tensors(stage: Stage, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is kept for each parameter, by its name in the stage (weights, moments), under canonical names."""
    tensors = {canonical: own[name] for canonical, name in outer_names(stage).items()}
    for local in range(len(stage.layers)):
        prefix = f"layers.{local}."
        layer = {name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)}
        converted = to_canonical(stage.config, layer)
        tensors |= {layer_prefix(stage, local) + name: tensor for name, tensor in converted.items()}
    return tensors


def own_state(stage: Stage, canonical: dict[str, Tensor]) -> dict[str, Tensor]:
    """The stage's state_dict from canonical tensors; those of other stages are passed over.

    Raises ValueError for tensors that are missing or of another shape.
    """
    for name, shape in canonical_shapes(stage).items():
        found = tuple(canonical[name].shape) if name in canonical else "nothing"
        if found != shape:
            raise ValueError(f"{name}: {shape} expected, {found} found")
    state = {own: canonical[name] for name, own in outer_names(stage).items()}
    for local in range(len(stage.layers)):
        tensors = {name: canonical[layer_prefix(stage, local) + name] for name in layer_shapes(stage.config)}
        state |= {f"layers.{local}.{own}": tensor for own, tensor in to_own(stage.config, tensors).items()}
    return state
