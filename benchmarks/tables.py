"""Tables of results files in Markdown: their rows as dictionaries, and a table put in another's place."""

from __future__ import annotations

import re
from pathlib import Path


def cells(line: str) -> list[str]:
    """The cells of a table's line."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text: str, head: str) -> list[list[str]]:
    """Lines of every table whose header begins with `head`, such as "instance | joint"."""
    wanted = cells(head)
    blocks = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M)]
    return [block for block in blocks if cells(block[0])[: len(wanted)] == wanted]


def rows(path: Path, head: str) -> dict[str, dict[str, str]]:
    """Rows by their first cell, of all tables of a file whose header begins with `head`; ValueError if there is none.

    If two columns have one name, the first counts.
    """
    found: dict[str, dict[str, str]] = {}
    for header, _, *lines in tables(path.read_text(encoding="utf-8"), head):
        names = cells(header)
        for line in lines:
            row: dict[str, str] = {}
            for name, cell in zip(names, cells(line), strict=True):
                row.setdefault(name, cell)
            found[row[names[0]].strip("`")] = row
    if not found:
        raise ValueError(f"{path} has no table that begins with {head}")
    return found


def with_table(text: str, head: str, lines: list[str]) -> str:
    """The text with these lines in the place of its first table whose header begins with `head`."""
    return text.replace("\n".join(tables(text, head)[0]), "\n".join(lines), 1)
