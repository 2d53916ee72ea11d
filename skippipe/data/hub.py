"""A dataset of the hub, or a folder that looks like one, read as a stream from any row of any of its files on."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from skippipe.config import DataConfig
from skippipe.errors import UserError

TABLE_ROWS = 64
"""Rows that are taken from the library at once."""
REVISION = re.compile(r"@([0-9a-f]{40})/")
"""In the address of a file on the hub."""


@dataclass(frozen=True)
class HubText:
    """The texts of a dataset's split; small and picklable, each process opens the dataset for itself."""

    name: str
    configuration: str | None
    split: str
    column: str
    """That holds the text."""
    revision: str | None
    """The dataset's commit, so that all processes read the same one; None of a folder on this machine."""
    files: int
    """Of which the split consists; each of them is read from its beginning to its end."""
    fingerprint: str
    """Hash of the names of its files and the column, of a folder's files also of their sizes."""

    source = "hub"
    count = 1000
    """Documents of which a sample is made."""

    @classmethod
    def find(cls, config: DataConfig) -> HubText:
        """The dataset that a configuration names, of which nothing is read yet; UserError if it can't be had."""
        assert config.hub is not None
        named = config.hub, config.hub_config, config.hub_split
        with readable(*named):
            names, rows = open_split(*named, config.hub_revision)
            files = rows.num_shards
        pinned = REVISION.search(names[0]) if names else None
        revision = pinned[1] if pinned else config.hub_revision
        parts = [told_apart(name, config.hub) for name in names] or [config.hub, str(revision)]
        identity = repr((named[1:], config.hub_field, parts))
        fingerprint = hashlib.sha256(identity.encode()).hexdigest()
        return cls(*named, config.hub_field, revision, files, fingerprint)

    def texts(self, file: int, row: int = 0, step: int = 1) -> Iterator[tuple[int, str]]:
        """Rows and texts of a file: every `step`-th from a row on, but for those that hold no text.

        UserError if the file can't be read.
        """
        with readable(self.name, self.configuration, self.split):
            rows = rows_of(self).shard(num_shards=self.files, index=file)
            at = row
            for table in rows.with_format("arrow").skip(row).iter(batch_size=TABLE_ROWS):
                for text in self.texts_of(table):
                    if (at - row) % step == 0 and text and text.strip():
                        yield at, text
                    at += 1

    def texts_of(self, table: Any) -> list[str | None]:
        """The texts of some rows; UserError if the column is none of texts."""
        if self.column in table.column_names:
            texts: list[str | None] = table[self.column].to_pylist()
            if all(isinstance(text, str | None) for text in texts):
                return texts
        raise UserError(
            f"{where(self.name, self.configuration, self.split)}: no text in data.hub_field {self.column!r};"
            f" columns: {', '.join(table.column_names)}"
        )

    def documents(self) -> Iterator[str]:
        """Every text in turn."""
        for file in range(self.files):
            yield from (text for _, text in self.texts(file))

    def __str__(self) -> str:
        return f"{self.name} from the hub"


def where(name: str, configuration: str | None, split: str) -> str:
    """What a message says of a dataset."""
    return f"data.hub {name} (config {configuration}, split {split})"


@contextmanager
def readable(name: str, configuration: str | None, split: str) -> Iterator[None]:
    """Turn whatever the library raises, from its network, file and parsing layers, into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        kind = f"{where(name, configuration, split)}: can't be streamed"
        raise UserError(f"{kind} ({type(error).__name__}: {reason})") from error


def open_split(name: str, configuration: str | None, split: str, revision: str | None) -> tuple[list[str], Any]:
    """Names of a split's files, paths or addresses, and its rows, an IterableDataset that has read nothing yet."""
    import datasets  # heavy, and of use here alone

    # It shows and logs what it raises too.
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    builder = datasets.load_dataset_builder(name, configuration, revision=revision)
    rows = builder.as_streaming_dataset(split=split)
    return list((builder.config.data_files or {}).get(split, [])), rows


@functools.lru_cache(maxsize=1)
def rows_of(text: HubText) -> Any:
    """The rows of a split, opened once in a process."""
    return open_split(text.name, text.configuration, text.split, text.revision)[1]


def told_apart(file: str, folder: str) -> str:
    """A file's address on the hub, which has the commit in it, or its place in a folder here and its size."""
    if not os.path.isfile(file):
        return file
    return f"{os.path.relpath(file, folder)} {os.path.getsize(file)}"
