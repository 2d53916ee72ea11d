"""Token files and batches: the corpus as one cached row of tokens, and each stage-0 node's own part of it."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from skippipe.config import DataConfig
from skippipe.data.corpus import Corpus
from skippipe.data.tokenizer import load_tokenizer, train_tokenizer
from skippipe.errors import UserError

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of the cache's keys: raise it when what is cached changes."""
BATCH_CHARACTERS = 1_000_000
"""Text that is tokenised at once: bounds the memory that preparing takes."""


@dataclass(frozen=True)
class Prepared:
    """A tokenised corpus on disk; small and picklable, other processes map its tokens into memory."""

    tokenizer: Path
    """The sentencepiece .model file."""
    vocabulary: int
    """Its number of tokens."""
    tokens: Path
    """Raw little-endian tokens, uint16, or uint32 if the vocabulary needs it; the held-out part comes last."""
    train_tokens: int
    """Tokens to train on."""
    validation_tokens: int
    """Tokens held out."""

    def map_tokens(self) -> NDArray[Any]:
        """All tokens, mapped read-only: memory is shared between processes and loaded as it is read."""
        return numpy.memmap(self.tokens, dtype=token_type(self.vocabulary), mode="r")


def token_type(vocabulary: int) -> numpy.dtype[Any]:
    """The smallest of the two types that holds every token id."""
    return numpy.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def prepare(config: DataConfig) -> Prepared:
    """Train the tokenizer and tokenise the corpus, or find both in the cache.

    Any number of processes may call it at once: one does the work and the others wait.
    Raises UserError for data that is missing, empty or too small, and for a tokenizer that isn't one.
    """
    begin = time.perf_counter()
    corpus = Corpus(config)
    cache = Path(config.cache).expanduser()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.cache: {cache}: can't be made ({error.strerror})") from None
    tokenizer_path = find_tokenizer(config, corpus, cache)
    tokenizer = load_tokenizer(tokenizer_path)
    tokens_path = cache / f"tokens-{key(corpus.fingerprint, tokenizer_path.read_bytes())}.bin"
    with written_once(tokens_path) as file:
        if file is not None:
            write_tokens(tokenizer, corpus, file)
            log.info("tokenised %s in %.1f s", corpus, time.perf_counter() - begin)
    return prepared_from(tokenizer_path, tokens_path, config.validation_fraction)


def prepared_from(tokenizer: Path, tokens: Path, validation_fraction: float) -> Prepared:
    """The corpus of a token file, whose last part is held out; UserError if the tokenizer is none."""
    vocabulary = load_tokenizer(tokenizer).vocab_size
    total = tokens.stat().st_size // token_type(vocabulary).itemsize
    held_out = round(total * validation_fraction)
    return Prepared(tokenizer, vocabulary, tokens, total - held_out, held_out)


def find_tokenizer(config: DataConfig, corpus: Corpus, cache: Path) -> Path:
    """The given .model file, or the one trained on the corpus, training it if the cache has none."""
    if config.tokenizer is not None:
        return Path(config.tokenizer).expanduser()
    path = cache / f"tokenizer-{key(corpus.fingerprint, config.vocabulary)}.model"
    with written_once(path) as file:
        if file is not None:
            begin = time.perf_counter()
            count = len(corpus.files) or config.hub_documents
            file.write(train_tokenizer(non_empty(corpus), count, config.vocabulary))
            log.info("trained a tokenizer on %s in %.1f s", corpus, time.perf_counter() - begin)
    return path


def non_empty(corpus: Corpus) -> Iterator[str]:
    """The documents of the corpus; UserError if there are none."""
    documents = corpus.documents()
    first = next(documents, None)
    if first is None:
        raise UserError(f"data.{corpus.config.source}: the corpus is empty ({corpus}, none with UTF-8 text)")
    return itertools.chain([first], documents)


def key(*parts: object) -> str:
    """Hash that tells cached files apart."""
    return hashlib.sha256(repr((FORMAT, *parts)).encode()).hexdigest()[:16]


@contextmanager
def written_once(path: Path) -> Iterator[BinaryIO | None]:
    """Give a file to write, which becomes `path` when the block ends well, or None if `path` is there already.

    Of many processes one writes and the others wait for it; a writer that dies leaves nothing half done.
    """
    if path.exists():
        yield None
        return
    temporary = path.with_suffix(".tmp")
    try:
        lock_file = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise UserError(f"data.cache: {path.parent}: can't be written ({error.strerror})") from None
    with lock_file as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        try:
            with temporary.open("wb") as file:
                yield file
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"data.cache: {path.parent}: can't be written ({error.strerror})") from None
        finally:
            temporary.unlink(missing_ok=True)


def write_tokens(tokenizer: Any, corpus: Corpus, file: BinaryIO) -> None:
    """Tokenise the documents one after another, each followed by the end token if the tokenizer has one."""
    dtype = token_type(tokenizer.vocab_size)
    end = [tokenizer.eos_id] if tokenizer.eos_id >= 0 else []
    for texts in grouped(non_empty(corpus)):
        encoded: list[list[int]] = tokenizer.sp_model.encode(texts, num_threads=2)
        for tokens in encoded:
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

    def __init__(self, prepared: Prepared, part: int, parts: int, samples: int, context: int, seed: int) -> None:
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


def cut(tokens: NDArray[Any], starts: Iterable[int], context: int) -> tuple[Tensor, Tensor]:
    """Sequences (B, T) of tokens from the given places on, and their targets (B, T), as int64."""
    rows = numpy.stack([tokens[start : start + context + 1] for start in starts]).astype(numpy.int64)
    sequences = torch.from_numpy(rows)
    return sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous()


def validation_batches(prepared: Prepared, samples: int, context: int, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Up to `limit` batches of tokens and targets, (B, T) int64 each, that tile the held-out tokens from their start.

    The last batch may have fewer sequences. Raises UserError if not even one sequence was held out.
    """
    if prepared.validation_tokens <= context:
        raise UserError(
            f"data.validation_fraction: {prepared.validation_tokens} tokens are held out, fewer than one sequence of "
            f"model.context {context} + 1; hold out more or give more text"
        )
    tokens = prepared.map_tokens()[prepared.train_tokens :]
    starts = range(0, len(tokens) - context, context)[: samples * limit]
    for first in range(0, len(starts), samples):
        yield cut(tokens, starts[first : first + samples], context)
