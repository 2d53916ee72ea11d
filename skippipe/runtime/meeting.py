"""What a launcher leaves in the run's folder while it lives, so that others of this machine can join its run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from skippipe.errors import UserError
from skippipe.peers import split_address
from skippipe.transport.addresses import Address, shown_address

PATTERN = "launcher-*.json"


@dataclass(frozen=True)
class Meeting:
    """Where the nodes of this machine's launchers are reached, and under which secret."""

    addresses: tuple[Address, ...]
    """Of datagrams."""
    secret: bytes | None
    """The cluster's, if a launcher has made it itself: nobody else could know it."""

    def leave(self, path: Path) -> None:
        """Write it, as a whole or not at all, for this user alone."""
        document = {
            "addresses": [shown_address(address) for address in self.addresses],
            "secret": None if self.secret is None else self.secret.hex(),
        }
        written = path.with_suffix(".tmp")
        written.unlink(missing_ok=True)
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(json.dumps(document) + "\n")
        written.replace(path)

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """What the launchers of a run's folder have left; None if none has. UserError if it can't be read."""
        addresses: list[Address] = []
        secrets: list[bytes] = []
        paths = sorted(folder.glob(PATTERN))
        for path in paths:
            try:
                document = json.loads(path.read_text())
                addresses += [split_address(address, "addresses") for address in document["addresses"]]
                if document["secret"] is not None:
                    secrets.append(bytes.fromhex(document["secret"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"--join: {path} can't be read ({error})") from None
        return cls(tuple(addresses), secrets[0] if secrets else None) if paths else None


def meeting_file(folder: Path, first_node: int) -> Path:
    """Where the launcher of a node leaves it."""
    return folder / f"launcher-{first_node}.json"
