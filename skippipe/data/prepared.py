"""Text that is ready to train on: its tokenizer, and what is held out of training."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Prepared(ABC):
    """A text and its tokenizer; small and picklable, other processes read the text for themselves."""

    tokenizer: Path
    """A sentencepiece .model file, or the folder of one of transformers'."""
    vocabulary: int
    """Its number of tokens."""

    @abstractmethod
    def held_out(self, most: int) -> NDArray[Any]:
        """The first `most` tokens that are held out, or all if there are fewer."""

    @abstractmethod
    def digest(self) -> str:
        """Hash of what it is trained on, the same wherever that lies."""


@dataclass(frozen=True)
class TokenFile(Prepared):
    """A tokenised corpus on disk, whose tokens are mapped into memory."""

    tokens: Path
    """Raw little-endian tokens, uint16, or uint32 if the vocabulary needs it; the held-out part comes last."""
    train_tokens: int
    """Tokens to train on."""
    validation_tokens: int
    """Tokens held out."""

    def map_tokens(self) -> NDArray[Any]:
        """All tokens, mapped read-only: memory is shared between processes and loaded as it is read."""
        return numpy.memmap(self.tokens, dtype=token_type(self.vocabulary), mode="r")

    def held_out(self, most: int) -> NDArray[Any]:
        """See Prepared."""
        return self.map_tokens()[self.train_tokens :][: min(most, self.validation_tokens)]

    def digest(self) -> str:
        """See Prepared; all of it is read."""
        with self.tokens.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def token_type(vocabulary: int) -> numpy.dtype[Any]:
    """The smallest of the two types that holds every token id."""
    return numpy.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def cut(tokens: NDArray[Any], starts: Iterable[int], context: int) -> tuple[Tensor, Tensor]:
    """Sequences (B, T) of tokens from the given places on, and their targets (B, T), as int64."""
    rows = numpy.stack([tokens[start : start + context + 1] for start in starts]).astype(numpy.int64)
    sequences = torch.from_numpy(rows)
    return sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous()
