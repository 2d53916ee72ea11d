"""Text from a trained model, token by token, with a key-value cache and any choice of stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from skippipe.data.tokenizer import Tokenizer
from skippipe.errors import UserError
from skippipe.model.inference import Visited
from skippipe.model.stage import Stage


@torch.no_grad()
def generate(
    stages: Sequence[Stage], visited: Visited, prompt: list[int], temperature: float, seed: int
) -> Iterator[int]:
    """Tokens after the prompt's until the context is full; temperature 0 takes the likeliest one.

    UserError for a prompt that is empty or leaves no room in the context.
    """
    context = stages[0].config.context
    if not 0 < len(prompt) < context:
        raise UserError(f"the prompt has {len(prompt)} tokens; the model takes 1 to {context - 1}")
    device = next(stages[0].parameters()).device
    # Drawn on the CPU, so that a seed gives the same text on any device with the same logits.
    generator = torch.Generator().manual_seed(seed)
    caches = {stage: DynamicCache() for stage in visited}
    tokens = prompt
    for _ in range(context - len(prompt)):
        hidden_BTD = torch.tensor([tokens], device=device)
        for stage in visited:
            hidden_BTD = stages[stage](hidden_BTD, caches[stage])
        logits_V = stages[0].logits(hidden_BTD[:, -1:])[0, 0].float().cpu()
        tokens = [pick(logits_V, temperature, generator)]
        yield tokens[0]


def pick(logits_V: Tensor, temperature: float, generator: torch.Generator) -> int:
    """The likeliest token at temperature 0, else one drawn from the softmax of logits / temperature."""
    if temperature == 0:
        return int(logits_V.argmax())
    return int(torch.multinomial(torch.softmax(logits_V / temperature, -1), 1, generator=generator))


def stream_text(tokenizer: Tokenizer, prompt: list[int], tokens: Iterator[int]) -> Iterator[str]:
    """Pieces of the text that follows the prompt, as they become certain, up to the token that ends a document."""
    ids = list(prompt)
    shown = len(tokenizer.decode(ids))
    text = ""
    for token in tokens:
        if token == tokenizer.eos_id:
            break
        ids.append(token)
        text = tokenizer.decode(ids)
        # A character of several byte tokens shows as U+FFFD until its last byte is there.
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[shown:]
            shown = len(text)
    if len(text) > shown:
        yield text[shown:]
