"""One stage's gradients and optimizer: mean over visits, clipping by the global norm, AdamW and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from skippipe.config import OptimizerConfig

NORM_PART = 1 << 20
"""Numbers of a gradient that are squared at once."""


class StageOptimizer:
    """Gradients of one stage in one flat buffer, and the AdamW that applies them.

    The flat buffer is what replicas all-reduce; every parameter's .grad is a view of it.
    """

    def __init__(self, stage: nn.Module, config: OptimizerConfig, iterations: int) -> None:
        """`iterations` are all of the run's, those before a checkpoint that it goes on from too."""
        self.config = config
        self.iterations = iterations
        self.parameters = parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]
        self.flat = torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
        offset = 0
        for parameter in parameters:
            parameter.grad = self.flat[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        self.own: Tensor | None = None
        """The gradient before the sync, once that has begun to change it."""
        self.adamw = make_adamw(stage, config)

    def zero(self) -> None:
        """Forget the gradients of the iteration before."""
        self.flat.zero_()
        self.own = None

    def begin_sync(self) -> None:
        """Remember this node's own gradient: a sync that loses a replica begins again with it."""
        self.own = self.flat.clone()

    def undo_sync(self) -> None:
        """Go back to this node's own gradient, if a sync has begun to change it."""
        if self.own is not None:
            self.flat.copy_(self.own)
            # What tasks add from now on must stay if there is another view before the next sync.
            self.own = None

    def average(self, visits: int) -> None:
        """Turn the sum over the microbatches that visited the stage into their mean."""
        self.flat.div_(visits)

    def squared_norm(self) -> float:
        """Squared length of the stage's gradient, summed in double precision."""
        # In parts: as a whole it would take four times the gradient's memory.
        return float(torch.stack([part.double().square().sum() for part in torch.split(self.flat, NORM_PART)]).sum())

    def moments(self, name: str) -> list[Tensor]:
        """AdamW's moments of this name, or its step counts; zeros if every iteration so far was dropped."""
        state = self.adamw.state
        zero = torch.zeros(())
        return [
            state[parameter][name] if parameter in state else zero if name == "step" else torch.zeros_like(parameter)
            for parameter in self.parameters
        ]

    def restore(self, parameter: Tensor, step: float, moments: dict[str, Tensor]) -> None:
        """Set AdamW's state of a parameter: its count of steps, and moments in memory of their own."""
        # The fused kernel reads the count where the parameter is.
        device = parameter.device if self.adamw.defaults["fused"] else None
        self.adamw.state[parameter] = {"step": torch.tensor(step, device=device), **moments}

    def step(self, iteration: int, squared_norm: float) -> None:
        """Clip to the global norm over all stages, given squared, and update the weights."""
        norm = squared_norm**0.5
        if norm > self.config.clip:
            self.flat.mul_(self.config.clip / norm)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate(self.config, iteration, self.iterations)
        self.adamw.step()


def make_adamw(stage: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW as configured; weights of layers and head decay, the embedding and all that has one dimension do not.

    On CUDA one kernel updates all.
    """
    kept = {module.weight for module in stage.modules() if isinstance(module, nn.Embedding)}
    kept |= {parameter for parameter in stage.parameters() if parameter.ndim < 2}
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in stage.parameters() if parameter not in kept]},
        {"params": [parameter for parameter in stage.parameters() if parameter in kept], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=all(parameter.is_cuda for parameter in stage.parameters()) or None,
    )


def learning_rate(config: OptimizerConfig, iteration: int, iterations: int) -> float:
    """Rate of an iteration of a run that has `iterations` of them.

    As transformers' schedules with warm-up have it: 0 in iteration 0, whose step moves no weight and only begins the
    moments; the peak first in iteration `warmup_iterations`; a cosine would be at its end one iteration after the last.
    """
    warmup = config.warmup_iterations
    if iteration < warmup:
        return config.learning_rate * iteration / warmup
    if config.decay == "constant":
        return config.learning_rate
    left = (1 + math.cos(math.pi * (iteration - warmup) / (iterations - warmup))) / 2
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * left
