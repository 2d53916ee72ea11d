"""Validation with the full model while the peers train: batches walk over one node of each stage in order."""

from __future__ import annotations

import torch
from torch import Tensor

from skippipe.data.batches import validation_batches
from skippipe.data.prepared import Prepared
from skippipe.model.inference import perplexity_of
from skippipe.model.stage import Stage
from skippipe.runtime.gradients import Exchange, Group
from skippipe.transport.collective import Identity, Outgoing
from skippipe.transport.links import Links
from skippipe.transport.message import MessageKind

VALIDATION_BATCHES = 8


class FullModel:
    """The full model's validation, a measurement and no part of the method: its messages are delivered at once."""

    def __init__(self, stage: Stage, prepared: Prepared, samples: int) -> None:
        """Batches have `samples` sequences."""
        self.stage = stage
        model = stage.config
        self.batches = list(validation_batches(prepared, samples, model.context, VALIDATION_BATCHES))
        self.shapes = [(*tokens_BT.shape, model.d_model) for tokens_BT, _ in self.batches]
        """Of the hidden states that walk from stage to stage."""

    @torch.no_grad()
    def perplexity(self, group: Group, links: Links, iteration: int) -> float:
        """Perplexity of held-out text with every stage; all nodes call it after an iteration and learn the result."""
        total = [0.0, 0.0]
        if group.leads:
            for number, (tokens_BT, targets_BT) in enumerate(self.batches):
                loss = self.walk(group, links, iteration, number, tokens_BT, targets_BT)
                if loss is not None:
                    total = [total[0] + loss * tokens_BT.numel(), total[1] + tokens_BT.numel()]
        rows = group.share(links, iteration, Exchange.PERPLEXITY, total)
        losses, counts = zip(*rows.values(), strict=True)
        return perplexity_of(sum(losses) / sum(counts))

    def walk(
        self, group: Group, links: Links, iteration: int, number: int, tokens_BT: Tensor, targets_BT: Tensor
    ) -> float | None:
        """This leader's part of a batch's way; the batch's loss at the first leader, where the way ends."""
        identity = Identity(iteration, Exchange.VALIDATION, group.view)
        device = self.stage.cos.device
        first = group.node == group.leaders[0]

        def receive() -> Tensor:
            return links.take_arrived(identity)[1].to(device)

        with self.stage.uncompiled():
            left_BTD = self.stage(tokens_BT.to(device) if first else receive())
        if len(group.leaders) > 1:
            links.post(identity, [Outgoing(group.around[1], MessageKind.HIDDEN, number, left_BTD)], 0.0)
        if not first:
            return None
        if len(group.leaders) > 1:
            left_BTD = receive()
        return float(self.stage.loss(left_BTD, targets_BT.to(device)))
