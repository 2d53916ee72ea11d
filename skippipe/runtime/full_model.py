"""Validation with the full model while the peers train: batches walk over one node of each stage in order."""

from __future__ import annotations

import torch
import torch.distributed as distributed

from skippipe.config import ModelConfig
from skippipe.data.batches import Prepared, validation_batches
from skippipe.model.inference import perplexity_of
from skippipe.model.stage import Stage
from skippipe.schedule import Plan

VALIDATION_BATCHES = 8


@torch.no_grad()
def full_model_perplexity(
    node: int, plan: Plan, stage: Stage, model: ModelConfig, samples: int, prepared: Prepared
) -> float:
    """Perplexity of held-out text with every stage; all nodes call it between two iterations and learn the result.

    It is a measurement and no part of the method, so it takes torch.distributed's connections: links and times of the
    schedule's network don't see it.
    """
    leaders = [replicas[0] for replicas in plan.stages]
    total = torch.zeros(2, dtype=torch.float64)
    if node in leaders:
        place = leaders.index(node)
        around = leaders[(place + 1) % len(leaders)], leaders[place - 1]
        for tokens_BT, targets_BT in validation_batches(prepared, samples, model.context, VALIDATION_BATCHES):
            device = stage.cos.device
            received = torch.empty(*tokens_BT.shape, model.d_model)
            if place > 0:
                distributed.recv(received, around[1])
            left = stage(received.to(device) if place > 0 else tokens_BT.to(device))
            if len(leaders) > 1:
                distributed.send(left.cpu().contiguous(), around[0])
            if place == 0:
                if len(leaders) > 1:
                    distributed.recv(received, around[1])
                    left = received.to(device)
                count = tokens_BT.numel()
                total += torch.tensor([float(stage.loss(left, targets_BT.to(device))) * count, count])
    distributed.broadcast(total, leaders[0])
    return perplexity_of(float(total[0] / total[1]))
