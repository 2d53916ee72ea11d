"""`noted_run.py FILE takeover|redo run ..` is skippipe, but notes each iteration's loss in FILE at once.

metrics.jsonl has it an iteration later, too late for runs that are killed. With `redo` it also discards an iteration
and begins it again whenever a node is lost. The system has no such setting: it does so only if a stage has lost all
replicas, or if somebody is lost while nodes move.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.__main__ import main
from skippipe.cli.progress import Progress
from skippipe.runtime.events import Event, IterationLoss

if TYPE_CHECKING:
    from skippipe.runtime.plans import Plans
    from skippipe.schedule import Plan
    from skippipe.survival.view import View

REDO = "redo"


def note_losses(path: Path) -> None:
    """Let the launcher write each loss that it hears of into a file, a line an iteration."""
    on_event = Progress.on_event
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def noted(progress: Progress, event: Event) -> None:
        if isinstance(event, IterationLoss):
            os.write(file, json.dumps([event.iteration, event.loss]).encode() + b"\n")
        on_event(progress, event)

    Progress.on_event = noted  # type: ignore[method-assign]


def redo_always() -> None:
    """Let the nodes, which the launcher forks of this process, find no heirs in an iteration that is running."""
    # Imported here: other runs prepare their data while they import torch.
    from skippipe.runtime.plans import Plans
    from skippipe.survival.succession import StageLostError, plan_of_the_living, plan_of_what_follows

    succeed, skip = Plans.succeed, Plans.skip

    def refuse(plans: Plans, view: View, iteration: int, lost: Collection[int]) -> Plan:
        if lost:
            # As if no heir could be had: the iteration is then redone.
            raise StageLostError([])
        return succeed(plans, view, iteration, lost)

    def skip_or_inherit(plans: Plans, plan: Plan, lost: Collection[int]) -> Plan:
        try:
            left = plan_of_the_living(plan, lost, plans.costs, plans.bandwidth, plans.moved)
        except StageLostError:
            return skip(plans, plan, lost)
        return plan_of_what_follows(left, plans.costs, plans.memory)

    Plans.succeed, Plans.skip = refuse, skip_or_inherit  # type: ignore[method-assign]


if __name__ == "__main__":
    note_losses(Path(sys.argv[1]))
    if sys.argv[2] == REDO:
        redo_always()
    sys.exit(main(sys.argv[3:]))
