"""`noted_run.py FILE takeover|redo run ..` is skippipe, whose nodes note each loss in FILE before they step.

metrics.jsonl has it an iteration later, too late for runs that are killed. With `redo` it also discards an iteration
and begins it again whenever a node is lost. The system has no such setting: it does so only if a stage has lost all
replicas, or all that are near, or if somebody is lost while nodes move.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path

from skippipe.__main__ import main
from skippipe.runtime.figures import Figures, mean_loss
from skippipe.runtime.plans import Plans
from skippipe.runtime.worker import Worker
from skippipe.schedule import Plan
from skippipe.survival.succession import StageLostError, plan_of_the_living, plan_of_what_follows
from skippipe.survival.view import View

REDO = "redo"


def note_losses(path: Path) -> None:
    """Let all nodes, which the launcher forks of this process, write each loss into a file: any of them may die."""
    step = Worker.step
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def noted(worker: Worker, iteration: int, figures: dict[int, Figures]) -> str | None:
        os.write(file, json.dumps([iteration, mean_loss(figures.values())]).encode() + b"\n")
        return step(worker, iteration, figures)

    Worker.step = noted  # type: ignore[method-assign]


def redo_always() -> None:
    """Let the nodes find no heirs in an iteration that is running."""
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
        follows = plan_of_what_follows(left, plans.costs, plans.memory)
        # As Plans.restart, which can't be called: it would call this.
        anew = skip(plans, plan, lost) if plans.is_slow(follows, plan) else follows
        return anew if plans.is_slow(follows, anew) else follows

    Plans.succeed, Plans.skip = refuse, skip_or_inherit  # type: ignore[method-assign]


if __name__ == "__main__":
    note_losses(Path(sys.argv[1]))
    if sys.argv[2] == REDO:
        redo_always()
    sys.exit(main(sys.argv[3:]))
