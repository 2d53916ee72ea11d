"""One stage's gradients and optimizer: mean over visits, clipping by the global norm, AdamW with warm-up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skippipe.config import OptimizerConfig


class StageOptimizer:
    """Gradients of one stage in one flat buffer, and the AdamW that applies them.

    The flat buffer is what replicas all-reduce; every parameter's .grad is a view of it.
    """

    def __init__(self, stage: nn.Module, config: OptimizerConfig) -> None:
        self.config = config
        parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]
        self.flat = torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
        offset = 0
        for parameter in parameters:
            parameter.grad = self.flat[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        self.adamw = make_adamw(parameters, config)

    def zero(self) -> None:
        """Forget the gradients of the iteration before."""
        self.flat.zero_()

    def average(self, visits: int) -> None:
        """Turn the sum over the microbatches that visited the stage into their mean."""
        self.flat.div_(visits)

    def squared_norm(self) -> float:
        """Squared length of the stage's gradient, summed in double precision."""
        return float(self.flat.double().square().sum())

    def moments(self, name: str) -> list[Tensor]:
        """AdamW's moments of this name, or its step counts; zeros if every iteration so far was dropped."""
        state = self.adamw.state
        zero = torch.zeros(())
        return [
            state[parameter][name] if parameter in state else zero if name == "step" else torch.zeros_like(parameter)
            for group in self.adamw.param_groups
            for parameter in group["params"]
        ]

    def step(self, iteration: int, squared_norm: float) -> None:
        """Clip to the global norm over all stages, given squared, and update the weights."""
        norm = squared_norm**0.5
        if norm > self.config.clip:
            self.flat.mul_(self.config.clip / norm)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate(self.config, iteration)
        self.adamw.step()


def make_adamw(parameters: Sequence[Tensor], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW as configured."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )


def learning_rate(config: OptimizerConfig, iteration: int) -> float:
    """Linear warm-up to the peak, then constant."""
    return config.learning_rate * min(1.0, (iteration + 1) / max(1, config.warmup_iterations))
