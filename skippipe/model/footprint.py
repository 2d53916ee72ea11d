"""What a stage holds in memory, from the configuration alone: parameters, what a forward keeps, what a task needs."""

from __future__ import annotations

from dataclasses import dataclass

from skippipe.config import ModelConfig, Precision, RunConfig

FP32, BF16, TOKEN = 4, 2, 8
"""Bytes of a number, and of a token's id."""
MMAP_BYTES = 1 << 25
"""Memory from here on glibc gives back as soon as it is freed; smaller pieces stay in the process's heap."""
HEAP_OF_STATE, HEAP_OF_KEPT, HEAP_OF_BACKWARD, HEAP_OF_LOSS = 0.3, 0.33, 0.7, 1.0
"""What the heap holds of freed pieces for each byte in smaller tensors: docs/runtime.md."""
STATE_NUMBERS = 4
"""Numbers a parameter while training: weight, gradient and AdamW's two moments."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a stage takes on its device."""

    parameters: int
    """How many, no bytes."""
    state: int
    """Weights, gradient and AdamW's moments."""
    activation: int
    """A microbatch between two stages, fp32."""
    kept: int
    """What a microbatch's forward keeps for its backward."""
    backward: int
    """Most that a backward needs beside what was kept and the gradient that it begins with."""
    loss: int
    """Most that the loss and its backward need beside the loss's input; 0 but at stage 0."""
    update: int
    """What AdamW needs while it updates the largest tensor."""


def footprint(config: RunConfig, stage: int, samples: int, vocabulary: int) -> Footprint:
    """Of stage number `stage`, for microbatches of so many sequences."""
    model, tokens = config.model, samples * config.model.context
    count, largest = parameters(model, stage, vocabulary), model.d_model * model.hidden_width
    activation = FP32 * tokens * model.d_model
    full = tokens * layer_bytes(model, config.precision) + cast_bytes(model, config.precision)
    kept = model.layers_per_stage * (activation if config.recompute else full)
    # Gradients of both products of the feed-forward part: the one that they are made from lies in the place of what was
    # kept of the two. A layer that is computed again finds its input kept.
    backward = 2 * number_bytes(config.precision) * tokens * model.hidden_width
    backward += full - activation if config.recompute else 0
    loss = 0
    if stage == 0:
        kept += 2 * TOKEN * tokens
        # Log-probabilities, their gradient and that of the logits; of the norm its result and the quotient.
        loss = 3 * FP32 * tokens * vocabulary + 2 * activation
        largest = max(largest, vocabulary * model.d_model)
    state = STATE_NUMBERS * FP32 * count
    return Footprint(count, state, activation, kept, backward, loss, 2 * FP32 * largest)


def parameters(model: ModelConfig, stage: int, vocabulary: int) -> int:
    """How many parameters a stage has."""
    width = model.d_model
    layers = model.layers_per_stage * (matrix_numbers(model) + 2 * width)
    return layers + (2 * vocabulary * width + width if stage == 0 else 0)


def matrix_numbers(model: ModelConfig) -> int:
    """Numbers of a layer's matrices."""
    return 4 * model.d_model**2 + 3 * model.d_model * model.hidden_width


def number_bytes(precision: Precision) -> int:
    """Bytes of a number that a matrix product gives."""
    return BF16 if precision == "bf16" else FP32


def layer_bytes(model: ModelConfig, precision: Precision) -> int:
    """Bytes that a layer keeps of each token if nothing is recomputed, its input among them."""
    width, hidden = model.d_model, model.hidden_width
    # Both norms keep a root for each token, attention a sum for each head.
    roots = FP32 * (2 + model.heads)
    if precision == "fp32":
        # Inputs, quotients and results of both norms; queries, keys, values and what attention makes of them. The
        # feed-forward part keeps both products, the activation of one, and what both make together.
        return FP32 * (10 * width + 4 * hidden) + roots
    # Inputs and quotients of the norms stay fp32; each of the five matrices that reads a norm casts it for itself.
    return 4 * FP32 * width + BF16 * (5 * width + 4 * width + 4 * hidden) + roots


def heap_bytes(config: RunConfig, own: Footprint, samples: int, vocabulary: int, kept: int) -> float:
    """What the CPU's heap takes beside a stage's tensors, of which microbatches keep so many bytes at most."""
    model, tokens = config.model, samples * config.model.context
    # The loss makes some more tensors of the logits' size; of exactly MMAP_BYTES they left as much when measured.
    loss = HEAP_OF_LOSS * own.loss if FP32 * tokens * vocabulary <= MMAP_BYTES else 0.0
    tasks = HEAP_OF_KEPT * kept + HEAP_OF_BACKWARD * (own.activation + own.backward)
    share = heap_share(model, config.precision, tokens)
    return share * tasks + loss + HEAP_OF_STATE * state_share(model) * own.state


def heap_share(model: ModelConfig, precision: Precision, tokens: int) -> float:
    """Part of what a microbatch keeps that lies in tensors of less than MMAP_BYTES."""
    narrow, wide = 10 * model.d_model, 4 * model.hidden_width
    if number_bytes(precision) * tokens * model.hidden_width < MMAP_BYTES:
        return 1.0
    return narrow / (narrow + wide) if number_bytes(precision) * tokens * model.d_model < MMAP_BYTES else 0.0


def state_share(model: ModelConfig) -> float:
    """Part of a layer's weights that lies in tensors of less than MMAP_BYTES, and so of their gradient and moments."""
    narrow, wide = 4 * model.d_model, 3 * model.hidden_width
    if FP32 * model.d_model * model.hidden_width < MMAP_BYTES:
        return 1.0
    return narrow / (narrow + wide) if FP32 * model.d_model**2 < MMAP_BYTES else 0.0


def cast_bytes(model: ModelConfig, precision: Precision) -> int:
    """Bytes of a layer's matrices as a microbatch's forward casts and keeps them."""
    return BF16 * matrix_numbers(model) if precision == "bf16" else 0
