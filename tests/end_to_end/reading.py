"""`python -m tests.end_to_end.reading FILE MOMENT NODE run ...`: dying.py with a line in FILE for each batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from skippipe.__main__ import main
from skippipe.data.batches import Batches
from skippipe.runtime.job import Job
from skippipe.runtime.microbatches import Microbatches
from tests.end_to_end.dying import Moment, Patches


def note_reads(path: Path) -> None:
    """Let nodes note what they read, each line in one write: iteration, microbatch, node, part, number."""
    make, read, batch = Microbatches.__init__, Microbatches.read, Batches.batch
    reader: dict[str, int] = {}

    def making(own: Microbatches, job: Job) -> None:
        reader.update(node=job.node)
        make(own, job)

    def reading(own: Microbatches, iteration: int, microbatch: int) -> Any:
        reader.update(microbatch=microbatch)
        return read(own, iteration, microbatch)

    def noting(own: Batches, iteration: int, number: int) -> Any:
        line = {"iteration": iteration, **reader, "part": own.identity[1], "number": number}
        # Before the start it is tried whether there is enough text.
        if "node" in line:
            with path.open("ab", buffering=0) as file:
                file.write(json.dumps(line).encode() + b"\n")
        return batch(own, iteration, number)

    Microbatches.__init__, Microbatches.read = making, reading  # type: ignore[method-assign]
    Batches.batch = noting  # type: ignore[method-assign]


if __name__ == "__main__":
    note_reads(Path(sys.argv[1]))
    Patches(int(sys.argv[3])).die_at(Moment[sys.argv[2]])
    sys.exit(main(sys.argv[4:]))
