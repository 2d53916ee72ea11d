"""Measured deaths beside the simulation of the same ones, known to the others when they had agreed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.deaths import Death
from benchmarks.jobs import SETTING, Job
from skippipe.config import RunConfig
from skippipe.fields import load_config
from skippipe.report.views import TAKEOVER
from skippipe.schedule import Schedule
from skippipe.survival.succession import plan_of_the_living
from tests.survival import takeover

TABLE = ("| nodes | after, steps | agreed, s of the schedule | step | simulated |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Beside:
    """One death; steps are over the expected one."""

    death: Death
    agreed_s: float
    """Of the schedule, from the death on."""
    simulated: float | None
    """None for a death during the sync, which is not simulated."""

    def row(self) -> str:
        """As a line of the table."""
        nodes = ", ".join(map(str, self.death.nodes))
        simulated = "in the sync" if self.simulated is None else f"{self.simulated:.2f}"
        return f"| {nodes} | {self.death.moment:.2f} | {self.agreed_s:.1f} | {self.death.step:.2f} | {simulated} |"


def simulate(job: Job, deaths: Iterable[Death]) -> list[Beside]:
    """Every takeover of a job's deaths; their moments are steps from the beginning of an iteration on."""
    config = load_config(RunConfig, job.file, ())
    schedule = Schedule.load(config.schedule)
    plan, sync_bytes = schedule.plan(SETTING), schedule.pipeline.sync_bytes
    found = []
    for death in deaths:
        if death.way == TAKEOVER:
            at_s, agreed_s = death.moment % 1 * plan.expected_step_s, death.agreed_s / config.emulation.time_scale
            simulated = None
            if at_s <= plan.expected_iteration_s:
                lost = frozenset(death.nodes)
                living = plan_of_the_living(plan, lost, schedule.costs, schedule.bandwidth_gib_s, sync_bytes)
                dead = takeover.Death(lost, at_s, agreed_s)
                step_s = takeover.takeover_step_seconds(plan, living, schedule.costs, dead)
                simulated = step_s / plan.expected_step_s
            found.append(Beside(death, agreed_s, simulated))
    return found


def told(found: list[Beside]) -> list[str]:
    """The table, and what is to be seen in it."""
    tasks = [(beside.death.step, beside.simulated) for beside in found if beside.simulated is not None]
    syncs = [beside.death.step for beside in found if beside.simulated is None]
    lines = ["", "## Beside the simulation", "", *TABLE, *(beside.row() for beside in found), ""]
    if tasks:
        measured, simulated = (statistics.mean(each) for each in zip(*tasks, strict=True))
        apart = max(abs(step - other) for step, other in tasks)
        lines.append(
            f"{len(tasks)} deaths before the sync took steps of {measured:.2f} (mean), simulated, known when all had"
            f" agreed, {simulated:.2f}; no two are further than {apart:.2f} apart."
        )
    if syncs:
        lines.append(f"{len(syncs)} during the sync, which has to be begun again, took {statistics.mean(syncs):.2f}.")
    return lines
