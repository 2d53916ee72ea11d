"""Preparing a text; a corpus of files as one cached row of tokens, and batches of each stage-0 node's part of it."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy
from torch import Tensor

from skippipe.config import DataConfig
from skippipe.data.cache import key, written_once
from skippipe.data.corpus import Corpus
from skippipe.data.hub import HubText
from skippipe.data.prepared import Prepared, TokenFile, cut, token_type
from skippipe.data.stream import Streamed
from skippipe.data.tokenizer import (
    PretrainedTokenizer,
    Tokenizer,
    load_tokenizer,
    open_tokenizer,
    tokenizer_files,
    train_tokenizer,
)
from skippipe.errors import UserError
from skippipe.fields import user_path

log = logging.getLogger(__name__)

BATCH_CHARACTERS = 1_000_000
"""Text that is tokenised at once: bounds the memory that preparing takes."""


def prepare(config: DataConfig) -> Prepared:
    """Train the tokenizer and tokenise the corpus, or find both in the cache; a hub dataset is not read yet.

    Any number of processes may call it at once: one does the work and the others wait.
    Raises UserError for data that is missing, empty or too small, and for a tokenizer that isn't one.
    """
    cache = user_path(config.cache, "data.cache")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.cache: {cache}: can't be made ({error.strerror})") from None
    if config.source == "hub":
        text = HubText.find(config)
        path = find_tokenizer(config, text, cache)
        return Streamed(path, load_tokenizer(path).vocab_size, text, config.validation_fraction, cache)
    return prepare_files(config, cache)


def prepare_files(config: DataConfig, cache: Path) -> TokenFile:
    """Tokenise a corpus of files."""
    begin = time.perf_counter()
    corpus = Corpus(config)
    tokenizer_path = find_tokenizer(config, corpus, cache)
    tokenizer = load_tokenizer(tokenizer_path)
    contents = [file.read_bytes() for file in tokenizer_files(tokenizer_path)]
    tokens_path = cache / f"tokens-{key(corpus.fingerprint, *contents)}.bin"
    with written_once(tokens_path) as file:
        if file is not None:
            write_tokens(tokenizer, corpus, file)
            log.info("tokenised %s in %.1f s", corpus, time.perf_counter() - begin)
    return prepared_from(tokenizer_path, tokens_path, config.validation_fraction)


def prepared_from(tokenizer: Path, tokens: Path, validation_fraction: float) -> TokenFile:
    """The corpus of a token file, whose last part is held out; UserError if the tokenizer is none."""
    vocabulary = load_tokenizer(tokenizer).vocab_size
    total = tokens.stat().st_size // token_type(vocabulary).itemsize
    held_out = round(total * validation_fraction)
    return TokenFile(tokenizer, vocabulary, tokens, total - held_out, held_out)


def find_tokenizer(config: DataConfig, corpus: Corpus | HubText, cache: Path) -> Path:
    """The given .model file, or what the cache has of another one that is given, or trained on the corpus."""
    if config.tokenizer is not None:
        given = open_tokenizer(config.tokenizer)
        if isinstance(given, PretrainedTokenizer):
            return keep(given, cache)
        return user_path(config.tokenizer, "data.tokenizer")
    path = cache / f"tokenizer-{key(corpus.fingerprint, config.vocabulary)}.model"
    with written_once(path) as file:
        if file is not None:
            begin = time.perf_counter()
            file.write(train_tokenizer(non_empty(corpus), corpus.count, config.vocabulary))
            log.info("trained a tokenizer on %s in %.1f s", corpus, time.perf_counter() - begin)
    return path


def keep(tokenizer: PretrainedTokenizer, cache: Path) -> Path:
    """A folder of the cache with a tokenizer's files, for all processes, wherever it came from."""
    files = tokenizer.files()
    folder = cache / f"tokenizer-{key(*files.values())}"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"data.cache: {folder}: can't be made ({error.strerror})") from None
    for name, contents in files.items():
        with written_once(folder / name) as file:
            if file is not None:
                file.write(contents)
    return folder


def non_empty(corpus: Corpus | HubText) -> Iterator[str]:
    """The documents of the corpus; UserError if there are none."""
    documents = corpus.documents()
    first = next(documents, None)
    if first is None:
        raise UserError(f"data.{corpus.source}: the corpus is empty ({corpus}, none with UTF-8 text)")
    return itertools.chain([first], documents)


def write_tokens(tokenizer: Tokenizer, corpus: Corpus, file: BinaryIO) -> None:
    """Tokenise the documents one after another, each followed by the end token if the tokenizer has one."""
    dtype = token_type(tokenizer.vocab_size)
    end = [tokenizer.eos_id] if tokenizer.eos_id >= 0 else []
    for texts in grouped(non_empty(corpus)):
        for tokens in tokenizer.encode_all(texts):
            file.write(numpy.array(tokens + end, dtype=dtype).tobytes())


def grouped(documents: Iterable[str]) -> Iterator[list[str]]:
    """Lists of documents that together have about BATCH_CHARACTERS."""
    group: list[str] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document)
        if size >= BATCH_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


class Batches:
    """Training batches of one stage-0 node: packed sequences from its own part of the training tokens."""

    def __init__(self, prepared: TokenFile, part: int, parts: int, samples: int, context: int, seed: int) -> None:
        """Take part number `part` of `parts` equal ones; batches have `samples` sequences of `context` tokens.

        Raises UserError if the part is shorter than one sequence and its shifted targets.
        """
        assert 0 <= part < parts, f"part {part} of {parts}"
        first, last = (prepared.train_tokens * edge // parts for edge in (part, part + 1))
        if last - first <= context:
            raise UserError(
                f"data: each of {parts} stage-0 nodes has {last - first} training tokens, fewer than one sequence of "
                f"model.context {context} + 1; give more text or a smaller context"
            )
        self.tokens = prepared.map_tokens()[first:last]
        self.samples, self.context = samples, context
        self.identity = (seed, part)

    def batch(self, iteration: int, microbatch: int) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) and targets (B, T), int64, the targets one token on.

        A function of (seed, part, iteration, microbatch) alone: sequences start at random places of the part.
        """
        generator = numpy.random.default_rng((*self.identity, iteration, microbatch))
        starts = generator.integers(len(self.tokens) - self.context, size=self.samples)
        return cut(self.tokens, starts, self.context)


def validation_batches(prepared: Prepared, samples: int, context: int, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Up to `limit` batches of tokens and targets, (B, T) int64 each, that tile the held-out tokens from their start.

    The last batch may have fewer sequences. Raises UserError if not even one sequence was held out.
    """
    tokens = prepared.held_out(samples * limit * context + 1)
    if len(tokens) <= context:
        raise UserError(
            f"data.validation_fraction: {len(tokens)} tokens are held out, fewer than one sequence of "
            f"model.context {context} + 1; hold out more or give more text"
        )
    starts = range(0, len(tokens) - context, context)
    for first in range(0, len(starts), samples):
        yield cut(tokens, starts[first : first + samples], context)
