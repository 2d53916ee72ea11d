"""What makes a run: everything that must be equal on all machines, compared without being told to others."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Self

RUN_ID_BYTES = 16
UNKNOWN = bytes(RUN_ID_BYTES)
"""The run id of whoever has not learned it yet: it comes from the launcher of node 0."""
ENTRY = struct.Struct("<4s4s")
"""Short hashes of a field's name and value."""
RUN_ID = "run id"
FOREIGN = "fields that are not known here"


@dataclass
class RunIdentity:
    """Fields by name, as text, and the id of this one run of them."""

    fields: dict[str, str] = field(default_factory=dict)
    run_id: bytes = UNKNOWN

    def __post_init__(self) -> None:
        entries = sorted((short(name), short(f"{name}={value}"), name) for name, value in self.fields.items())
        self.table = b"".join(ENTRY.pack(name, value) for name, value, _ in entries)
        """What others compare with."""
        self.names = {name: text for name, _, text in entries}
        self.digest = digest_of(self.table)

    @classmethod
    def of_table(cls, table: bytes) -> Self:
        """That of somebody who has shown this table; its fields are not known."""
        identity = cls()
        identity.table, identity.digest = table, digest_of(table)
        return identity

    def differences(self, table: bytes, run_id: bytes) -> list[str]:
        """Names of the fields in which another's table differs, with our value; of another id, that alone.

        ValueError if it is no table.
        """
        if len(table) % ENTRY.size:
            raise ValueError(f"a table of {len(table)} bytes")
        mine, theirs = (dict(ENTRY.iter_unpack(data)) for data in (self.table, table))
        named = []
        for name in sorted(self.names, key=self.names.__getitem__):
            if theirs.get(name) != mine[name]:
                named.append(f"{self.names[name]} ({self.fields[self.names[name]]} here)")
        if theirs.keys() - mine.keys():
            named.append(FOREIGN)
        if not named and UNKNOWN not in (run_id, self.run_id) and run_id != self.run_id:
            named.append(RUN_ID)
        return named

    def learn(self, run_id: bytes) -> None:
        """Take the run id from a member of the run that has proved itself, if ours is not known yet."""
        if self.run_id == UNKNOWN:
            self.run_id = run_id


def digest_of(table: bytes) -> bytes:
    """Hash of a table, 32 bytes."""
    return hashlib.blake2b(table, digest_size=32, person=b"skippipe run").digest()


def differs(where: str, names: list[str]) -> str:
    """What is said of a machine that runs something else."""
    return f"{where} runs something else; it differs in: {', '.join(names)}"


def short(text: str) -> bytes:
    """Hash of a text, 4 bytes: enough to see a mistake; attackers don't hold the secret that tables are sent under."""
    return hashlib.blake2b(text.encode(), digest_size=4, person=b"skippipe field").digest()
