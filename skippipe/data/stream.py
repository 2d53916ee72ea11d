"""Batches from a stream: each stage-0 node's part of a hub dataset, tokenised as it is read, from any position on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from torch import Tensor

from skippipe.data.cache import key, written_once
from skippipe.data.hub import HubText
from skippipe.data.prepared import Prepared, cut, token_type
from skippipe.data.tokenizer import Tokenizer, load_tokenizer, tokenizer_files
from skippipe.errors import UserError

log = logging.getLogger(__name__)

GROUP_CHARACTERS = 200_000
"""Text that is tokenised at once, while what was before is trained on."""


class Position(NamedTuple):
    """Where a part goes on: in a document, whose first tokens are used up."""

    file: int
    """Files count on when the stream begins again: file n is number n mod files."""
    row: int
    used: int


class Document(NamedTuple):
    """The tokens of one text, from a position on."""

    position: Position
    tokens: NDArray[Any]


@dataclass(frozen=True)
class Streamed(Prepared):
    """A hub dataset and its tokenizer. Row r of file n is of part (r + n) mod parts, unless it is held out."""

    text: HubText
    held_out_part: float
    """Of the documents."""
    cache: Path
    """Folder for what was held out."""

    def is_held_out(self, document: str) -> bool:
        """Whether a document is held out of training; its contents decide it, so that no copy is trained on either."""
        digest = hashlib.blake2b(document.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) < self.held_out_part * 2**64

    def held_out(self, most: int) -> NDArray[Any]:
        """See Prepared; so much of the stream is read, from its beginning, and kept for other processes and runs."""
        path = self.cache / f"held-out-{key(self.digest(), self.held_out_part, most)}.bin"
        with written_once(path) as file:
            if file is not None:
                tokenizer, left = load_tokenizer(self.tokenizer), most
                for document in self.text.documents():
                    if left and self.is_held_out(document):
                        tokens = encode(tokenizer, [document])[0][:left]
                        file.write(tokens.astype(token_type(self.vocabulary)).tobytes())
                        left -= len(tokens)
                    if not left:
                        break
        return numpy.fromfile(path, dtype=token_type(self.vocabulary))

    def digest(self) -> str:
        """See Prepared: of the names of the files, not of what is in them."""
        contents = [file.read_bytes() for file in tokenizer_files(self.tokenizer)]
        return hashlib.sha256(repr((self.text.fingerprint, *contents)).encode()).hexdigest()

    def groups(self, part: int, parts: int, begin: Position) -> Iterator[list[Document]]:
        """A part's documents from a position on, for ever, some at a time; UserError if it has none."""
        tokenizer = load_tokenizer(self.tokenizer)
        file, row, _ = begin
        empty = 0
        # It may begin in the middle of a file, whose beginning comes last.
        while empty <= self.text.files:
            empty += 1
            for group in grouped(self.text.texts(file % self.text.files, row, parts), self.is_held_out):
                tokens = encode(tokenizer, [text for _, text in group])
                documents = [
                    Document(Position(file, at, 0), own) for (at, _), own in zip(group, tokens, strict=True) if len(own)
                ]
                if documents:
                    empty = 0
                    yield documents
            file += 1
            row = first_row(file % self.text.files, part, parts)
            if file % self.text.files == 0:
                log.info("part %d of the text begins again", part)
        raise UserError(
            f"data.hub {self.text}: no text for part {part} of {parts}, one for each stage-0 node; give more"
        )


def grouped(rows: Iterator[tuple[int, str]], is_left_out: Callable[[str], bool]) -> Iterator[list[tuple[int, str]]]:
    """Lists of rows and texts, without those that are left out, that together have about GROUP_CHARACTERS."""
    group: list[tuple[int, str]] = []
    size = 0
    for row, text in rows:
        if is_left_out(text):
            continue
        group.append((row, text))
        size += len(text)
        if size >= GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[NDArray[Any]]:
    """Tokens of each text, uint32, with the end token if the tokenizer has one."""
    end = [tokenizer.eos_id] if tokenizer.eos_id >= 0 else []
    return [numpy.array(tokens + end, dtype=numpy.uint32) for tokens in tokenizer.encode_all(texts)]


class StreamBatches:
    """Batches of one part of a stream: its tokens from where an iteration begins on, each in one sequence.

    The next documents are read and tokenised in a thread of its own meanwhile.
    """

    def __init__(self, text: Streamed, part: int, parts: int, samples: int, context: int, numbers: int) -> None:
        """`numbers` batches of `samples` sequences of `context` tokens make an iteration of the part."""
        self.text, self.part, self.parts = text, part, parts
        self.samples, self.context, self.numbers = samples, context, numbers
        self.iteration, self.position = -1, Position(0, 0, 0)
        """That is read, and where it began."""
        self.documents: list[Document] = []
        """From the iteration's beginning on, the first without what of it is used up."""
        self.tokens = numpy.zeros(0, dtype=numpy.uint32)
        """Those of the documents."""
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="text")
        self.coming: Future[list[Document]]

    @property
    def iteration_tokens(self) -> int:
        """How many an iteration takes; the first of the next one is the last one's target."""
        return self.numbers * self.samples * self.context

    @property
    def end(self) -> Position | None:
        """Where the next iteration begins, if this one's text was read so far."""
        if len(self.tokens) < self.iteration_tokens:
            return None
        left = self.iteration_tokens
        for position, tokens in self.documents:
            if left <= len(tokens):
                return position._replace(used=position.used + left)
            left -= len(tokens)
        raise AssertionError("the tokens are those of the documents")

    def begin(self, iteration: int, position: Position) -> None:
        """Begin an iteration at a position; who has read the one before stands there and goes on."""
        if (iteration, position) == (self.iteration, self.position):
            return
        if iteration == self.iteration + 1 and position == self.end:
            self.drop(self.iteration_tokens)
        else:
            self.open(position)
        self.iteration, self.position = iteration, position

    def open(self, position: Position) -> None:
        """Go to a position; UserError if that is no place in a document of the part."""
        groups = self.text.groups(self.part, self.parts, position)
        self.documents, self.tokens = [], self.tokens[:0]
        self.read_ahead(groups)
        self.read_more()
        if position.used:
            place, tokens = self.documents[0]
            if place[:2] != position[:2] or position.used > len(tokens):
                row = f"row {position.row} of file {position.file % self.text.text.files}"
                raise UserError(f"data.hub {self.text.text}: {row} is not the text that was trained on before")
            self.drop(position.used)

    def read_ahead(self, groups: Iterator[list[Document]]) -> None:
        """Let the next documents be read."""
        self.groups = groups
        self.coming = self.reader.submit(next, groups)

    def read_more(self) -> None:
        """Take the next documents, and let those after them be read; UserError if they can't."""
        documents = self.coming.result()
        self.read_ahead(self.groups)
        self.documents += documents
        self.tokens = numpy.concatenate([self.tokens, *(tokens for _, tokens in documents)])

    def drop(self, count: int) -> None:
        """Use up so many tokens."""
        self.tokens = self.tokens[count:]
        while self.documents and count >= len(self.documents[0].tokens):
            count -= len(self.documents.pop(0).tokens)
        if count:
            position, tokens = self.documents[0]
            self.documents[0] = Document(position._replace(used=position.used + count), tokens[count:])

    def read_to(self, count: int) -> None:
        """Have so many tokens of the iteration."""
        while len(self.tokens) < count:
            self.read_more()

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) and targets (B, T), int64, of a batch of the iteration; in any order, and again."""
        assert 0 <= number < self.numbers
        first = number * self.samples * self.context
        last = first + self.samples * self.context
        self.read_to(last + 1)
        return cut(self.tokens, range(first, last, self.context), self.context)

    def read_to_end(self) -> Position:
        """Where the next iteration begins, after reading all of this one."""
        self.read_to(self.iteration_tokens)
        assert self.end is not None
        return self.end


def first_row(file: int, part: int, parts: int, after: int = 0) -> int:
    """The first row of a file that is of a part, not before a certain one."""
    return after + (part - file - after) % parts


def positions_after(saved: Sequence[Position], parts: int, files: int) -> tuple[Position, ...]:
    """Where each of so many parts of a stream begins, after what was saved of as many or other parts, if anything.

    Of another number of parts it is the row after the last one that any part has begun: nothing is read twice, but what
    the slower parts have not read before it is left out.
    """
    if len(saved) == parts:
        return tuple(saved)
    file, row, used = max(saved, default=Position(0, 0, 0))
    row += used > 0
    return tuple(Position(file, first_row(file % files, part, parts, row), 0) for part in range(parts))
