"""The tokenizer: a sentencepiece model (simplellm's SPTokenizer), trained or given, or one of transformers'."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import sentencepiece

from skippipe.errors import UserError, shown
from skippipe.fields import user_path

log = logging.getLogger(__name__)

SAMPLE_CHARACTERS = 2_000_000
"""Text that a tokenizer is trained on; more changes its pieces little and costs seconds."""
PIECE_CHARACTERS = 4000
"""Length that the sample is cut to: the trainer passes over long sentences."""


SENTENCEPIECE, PRETRAINED, PRETRAINED_CONFIG = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
"""Files of a folder that holds a tokenizer: the first, or the two others, which transformers reads too."""
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
ENCODING_THREADS = 2


class Tokenizer(Protocol):
    """Text to tokens and back."""

    vocab_size: int
    """All tokens are below it."""
    bos_id: int
    """The token that begins a document, -1 if there is none."""
    eos_id: int
    """The token that ends a document, -1 if there is none."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without those that begin and end a document."""

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """Tokens of each of some texts."""

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens, without those that begin and end a document."""


class SentencePieceTokenizer:
    """simplellm's SPTokenizer over a .model file."""

    def __init__(self, path: Path) -> None:
        """UserError if the file is none."""
        from simplellm.tokenizers.sptokenizer import SPTokenizer  # imports requests: only when text is handled

        try:
            # A path keeps it from downloading one.
            tokenizer = SPTokenizer(str(path))
        except (RuntimeError, OSError):
            raise UserError(f"data.tokenizer: {path}: not a sentencepiece .model file") from None
        self.model: Any = tokenizer.sp_model
        """The SentencePieceProcessor."""
        self.vocab_size: int = tokenizer.vocab_size
        self.bos_id: int = tokenizer.bos_id
        self.eos_id: int = tokenizer.eos_id

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        tokens: list[int] = self.model.encode(text)
        return tokens

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """See Tokenizer."""
        tokens: list[list[int]] = self.model.encode(texts, num_threads=ENCODING_THREADS)
        return tokens

    def decode(self, tokens: list[int]) -> str:
        """See Tokenizer."""
        return str(self.model.decode(tokens))


class PretrainedTokenizer:
    """A tokenizer of transformers', whose work the library tokenizers does."""

    def __init__(self, backend: Any, bos: str | None, eos: str | None, where: str) -> None:
        """`backend` is a tokenizers.Tokenizer; UserError if a text that is said to be a token is none."""
        self.backend, self.bos, self.eos = backend, bos, eos
        # Neither cut nor filled up, and what stands for a token in a text is text.
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.bos_id, self.eos_id = (self.token(text, where) for text in (bos, eos))

    def token(self, text: str | None, where: str) -> int:
        """The token that a text stands for, -1 if there is none to be had."""
        if text is None:
            return -1
        token: int | None = self.backend.token_to_id(text)
        if token is None:
            raise UserError(f"data.tokenizer: {where}: has no token {shown(text)}")
        return token

    @classmethod
    def find(cls, name: str) -> PretrainedTokenizer:
        """That of a folder, or of a name on the hub, of whatever kind that transformers knows; UserError if none is."""
        from transformers import AutoTokenizer  # heavy, and of use here alone

        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            if not tokenizer.is_fast:
                raise ValueError("it has no tokenizer.json and can't be turned into one")
        except Exception as error:  # the library raises whatever its network, file and parsing layers do
            kind = "no tokenizer of transformers"
            if not Path(name).is_dir():
                kind = "neither a file nor a folder, and not to be had from the hub"
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"data.tokenizer: {shown(name)}: {kind} ({type(error).__name__}: {reason})") from None
        return cls(tokenizer.backend_tokenizer, tokenizer.bos_token, tokenizer.eos_token, name)

    @classmethod
    def load(cls, folder: Path) -> PretrainedTokenizer:
        """What `files` made; UserError if it is something else."""
        from tokenizers import Tokenizer as Backend

        try:
            config = json.loads((folder / PRETRAINED_CONFIG).read_text(encoding="utf-8"))
            bos, eos = (config.get(name) for name in ("bos_token", "eos_token"))
            if not {type(bos), type(eos)} <= {str, type(None)}:
                raise ValueError(f"{PRETRAINED_CONFIG} names tokens that are no text")
            backend = Backend.from_file(str(folder / PRETRAINED))
        except Exception as error:  # the library raises Exception itself
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"data.tokenizer: {folder}: no tokenizer that a run has saved ({reason})") from None
        return cls(backend, bos, eos, str(folder))

    def files(self) -> dict[str, bytes]:
        """Names and contents of the files of its folder."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": self.bos, "eos_token": self.eos}
        known = {name: value for name, value in config.items() if value is not None}
        return {PRETRAINED: self.backend.to_str().encode(), PRETRAINED_CONFIG: json.dumps(known).encode()}

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        tokens: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return tokens

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """See Tokenizer."""
        # One by one: a batch takes every core.
        return [self.encode(text) for text in texts]

    def decode(self, tokens: list[int]) -> str:
        """See Tokenizer."""
        return str(self.backend.decode(tokens))


def load_tokenizer(path: Path) -> Tokenizer:
    """Open a sentencepiece .model file, or a folder that a run has saved one of transformers' in; UserError."""
    if path.is_dir():
        return PretrainedTokenizer.load(path)
    if not path.is_file():
        raise UserError(
            f"data.tokenizer: {path}: no such file; give a sentencepiece .model, a folder or name on the hub of one of"
            " transformers', or leave the field out"
        )
    return SentencePieceTokenizer(path)


def open_tokenizer(given: str) -> Tokenizer:
    """What data.tokenizer names; UserError if it is none."""
    path = user_path(given, "data.tokenizer")
    if path.is_dir():
        return PretrainedTokenizer.find(str(path))
    if path.is_file() or path.suffix in (".model", ".json") or not HUB_NAME.fullmatch(given):
        return load_tokenizer(path)
    return PretrainedTokenizer.find(given)


def tokenizer_files(path: Path) -> list[Path]:
    """The files of the tokenizer that load_tokenizer opens."""
    return [path / name for name in (PRETRAINED, PRETRAINED_CONFIG)] if path.is_dir() else [path]


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
