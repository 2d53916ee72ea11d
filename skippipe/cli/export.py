"""Write a trained model as a Hugging Face LLaMA folder: config, safetensors and tokenizer."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and where to."""
    parser.add_argument("path", metavar="RUN", type=Path, help="folder of a run, or of one of its checkpoints")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder to write, new or empty")


def run(arguments: argparse.Namespace) -> int:
    """Export and say how to load it."""
    # Imported here: torch takes seconds.
    from skippipe.model.checkpoint import find_latest
    from skippipe.model.export import export_folder

    checkpoint = find_latest(arguments.path)
    whole = export_folder(checkpoint, arguments.out)
    print(f"wrote {checkpoint.folder} to {arguments.out}: AutoModelForCausalLM.from_pretrained({str(arguments.out)!r})")
    if not whole:
        print("the tokenizer is a sentencepiece model that transformers has no equal of: use its tokenizer.model")
    return 0
