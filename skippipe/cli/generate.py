"""Continue a text with a trained model, with all stages or with some left out, as the tokens come."""

from __future__ import annotations

import argparse
import itertools

from skippipe.cli.stage_choice import add_stage_arguments, chosen_stages
from skippipe.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, its stages, and what to write."""
    add_stage_arguments(parser)
    parser.add_argument("--prompt", required=True, help="text to continue")
    parser.add_argument("--tokens", type=int, default=100, help="tokens at most (default %(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="0 takes the likeliest token (default %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the prompt and what follows."""
    if arguments.tokens < 1:
        raise UserError(f"--tokens must be at least 1, not {arguments.tokens}")
    if not 0 <= arguments.temperature < float("inf"):
        raise UserError(f"--temperature must be 0 or more, not {arguments.temperature}")
    # Imported here: torch takes seconds, the errors above shouldn't.
    from skippipe.data.tokenizer import load_tokenizer
    from skippipe.model.checkpoint import find_latest, load_stages
    from skippipe.model.generation import generate, stream_text

    checkpoint = find_latest(arguments.path)
    visited = chosen_stages(arguments, checkpoint.meta.stages, 1)[0]
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    prompt = tokenizer.encode(arguments.prompt)
    stages = load_stages(checkpoint, arguments.device)
    tokens = generate(stages, visited, prompt, arguments.temperature, arguments.seed)
    print(arguments.prompt, end="", flush=True)
    for piece in stream_text(tokenizer, prompt, itertools.islice(tokens, arguments.tokens)):
        print(piece, end="", flush=True)
    print()
    return 0
