"""What a node's process has decided, left in the run's folder for those of its machine who hear of its death."""

from __future__ import annotations

from pathlib import Path

from skippipe.survival.messages import Decided, pack, unpack


def decision_file(folder: Path, node: int, birth: int) -> Path:
    """Where a node's process leaves the newest view that it knows of."""
    return folder / f"node-{node}-{birth}.view"


def leave_decision(folder: Path, node: int, birth: int, decision: Decided) -> None:
    """Leave a decision, as a whole or not at all."""
    path = decision_file(folder, node, birth)
    written = path.with_suffix(".tmp")
    written.write_bytes(pack(decision))
    written.replace(path)


def read_decision(folder: Path, node: int, birth: int) -> Decided | None:
    """The newest view that a process of this machine knew of when it died; None if it was in none, or in the first."""
    path = decision_file(folder, node, birth)
    if not path.exists():
        return None
    decision = unpack(path.read_bytes())
    assert isinstance(decision, Decided)
    return decision
