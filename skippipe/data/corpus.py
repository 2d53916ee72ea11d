"""The documents of a corpus of files: those that are given, or the Python standard library's own sources."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import sysconfig
from collections.abc import Collection, Iterator
from pathlib import Path

from skippipe.config import DataConfig
from skippipe.errors import UserError

log = logging.getLogger(__name__)


class Corpus:
    """Where the text is: `fingerprint` identifies it, `documents()` reads it, always in the same order."""

    def __init__(self, config: DataConfig) -> None:
        """Find the files and fingerprint their contents; UserError for paths that don't exist or hold no file."""
        self.source: str = config.source
        paths = standard_library() if config.source == "stdlib" else expand(config.paths)
        # Ordering by contents shuffles the files, whatever they are called, and drops copies.
        by_digest = {file_digest(path): path for path in paths}
        digests = sorted(by_digest)
        self.files = [by_digest[digest] for digest in digests]
        self.count = len(self.files)
        """Documents, if all of them are text."""
        self.fingerprint = hashlib.sha256(b"".join(digests)).hexdigest()

    def documents(self) -> Iterator[str]:
        """Every document that is not empty; files that are not UTF-8 are passed over."""
        return (text for text in file_texts(self.files) if text.strip())

    def __str__(self) -> str:
        return f"{self.count} files"


def standard_library() -> list[Path]:
    """The .py files of the running Python's standard library, without installed packages: about 30 MB."""
    files = visible_files(sysconfig.get_path("stdlib"), {"site-packages", "dist-packages"})
    return [path for path in files if path.suffix == ".py"]


def expand(patterns: tuple[str, ...]) -> list[Path]:
    """Files named by paths and glob patterns; of a folder, all files below it but hidden ones."""
    files: list[Path] = []
    for pattern in patterns:
        found = glob.glob(os.path.expanduser(pattern), recursive=True)
        inside = [file for path in found for file in ([Path(path)] if os.path.isfile(path) else visible_files(path))]
        if not inside:
            what = "holds no file" if found else "matches nothing"
            raise UserError(f"data.paths: {pattern!r} {what} (working directory: {Path.cwd()})")
        files += inside
    return files


def visible_files(root: str, without: Collection[str] = ()) -> list[Path]:
    """All files below a folder, apart from hidden ones and what lies in hidden folders or those named in `without`."""
    files: list[Path] = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in without]
        paths = (os.path.join(folder, name) for name in names if not name.startswith("."))
        files += [Path(path) for path in paths if os.path.isfile(path)]
    return files


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's contents; UserError if it can't be read."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise UserError(f"data.paths: {path}: can't be read ({error.strerror})") from None


def file_texts(files: list[Path]) -> Iterator[str]:
    """The text of each file that is UTF-8."""
    skipped = 0
    for path in files:
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            skipped += 1
    if skipped:
        log.info("passed over %d of %d files: not UTF-8 text", skipped, len(files))
