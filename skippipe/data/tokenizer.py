"""The tokenizer: simplellm's SPTokenizer over a sentencepiece model, trained on a sample of the corpus or given."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece

from skippipe.errors import UserError

log = logging.getLogger(__name__)

SAMPLE_CHARACTERS = 2_000_000
"""Text that a tokenizer is trained on; more changes its pieces little and costs seconds."""
PIECE_CHARACTERS = 4000
"""Length that the sample is cut to: the trainer passes over long sentences."""


def load_tokenizer(path: Path) -> Any:
    """Open a sentencepiece .model file as simplellm's SPTokenizer; UserError if it is none."""
    from simplellm.tokenizers.sptokenizer import SPTokenizer  # imports requests: only when text is handled

    if not path.is_file():
        raise UserError(f"data.tokenizer: {path}: no such file; give a sentencepiece .model or leave the field out")
    try:
        # A path keeps it from downloading one.
        return SPTokenizer(str(path))
    except (RuntimeError, OSError):
        raise UserError(f"data.tokenizer: {path}: not a sentencepiece .model file") from None


def train_tokenizer(documents: Iterable[str], count: int, vocabulary: int) -> bytes:
    """Train a BPE model with byte fallback, as LLaMA's, and return the contents of its .model file.

    Nothing is normalised away: the text may be code, where white space counts. `count`: about how many documents come.
    Raises UserError for a vocabulary that is too large or too small for the text.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sample(documents, max(PIECE_CHARACTERS, 4 * SAMPLE_CHARACTERS // count)),
            model_writer=model,
            vocab_size=vocabulary,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            max_sentence_length=4 * PIECE_CHARACTERS,
            num_threads=2,
            minloglevel=3,
        )
    except RuntimeError as error:
        raise UserError(f"data.vocabulary: {vocabulary} {reason(str(error))}") from None
    return model.getvalue()


def sample(documents: Iterable[str], longest: int) -> Iterator[str]:
    """Pieces of the documents' beginnings, at most `longest` characters of each, until the sample is full."""
    left = SAMPLE_CHARACTERS
    for document in documents:
        beginning = document[: min(longest, left)].replace("\0", "")
        for start in range(0, len(beginning), PIECE_CHARACTERS):
            yield beginning[start : start + PIECE_CHARACTERS]
        left -= len(beginning)
        if left <= 0:
            return


def reason(message: str) -> str:
    """What a message of sentencepiece's trainer means for the user."""
    if highest := re.search(r"too high.*<= (\d+)", message):
        return f"is too large for the corpus; use at most {highest[1]}, or more text"
    if lowest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return f"is too small: bytes and characters of the corpus alone take {lowest[1]}"
    return f"can't be trained on the corpus ({' '.join(message.split())[:200]})"
