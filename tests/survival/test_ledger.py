"""The ledger of batches: whoever dies and comes back, each iteration reads every part's text, and none twice."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule import Plan, Schedule
from skippipe.schedule.plan import Kind, Task
from skippipe.survival.succession import plan_of_the_living, plan_of_what_follows, sources
from tests.survival.instances import random_losses, random_schedule

ITERATIONS = 4


class Run:
    """Nodes that read, and die at any moment of an iteration: what they have done in it then dies with them."""

    def __init__(self, schedule: Schedule, seed: int) -> None:
        self.schedule, self.rng = schedule, np.random.default_rng(seed)
        self.first = self.plan = schedule.plan("any")
        self.sources = sources(self.first)
        self.origins_lost = 0

    def survived(self, plan: Plan, lost: frozenset[int]) -> Plan:
        """The plan of those who are left."""
        schedule = self.schedule
        return plan_of_the_living(plan, lost, schedule.costs, schedule.bandwidth_gib_s, schedule.pipeline.sync_bytes)

    def iterate(self) -> dict[int, set[Task]]:
        """What each node has done in an iteration when it is over."""
        done: dict[int, set[Task]] = {node: set() for node in self.plan.order}
        while self.rng.integers(3) and (lost := random_losses(self.plan, self.rng)):
            for node, order in self.plan.order.items():
                left = [task for task in order if task not in done[node]]
                done[node] |= set(left[: self.rng.integers(len(left) + 1)])
            self.origins_lost += len(lost.intersection(self.plan.stages[0]))
            self.plan = self.survived(self.plan, lost)
            done = {node: tasks for node, tasks in done.items() if node not in lost}
        for node, order in self.plan.order.items():
            done[node] |= set(order)
        return done

    def change(self) -> None:
        """Between two iterations: the order that follows a takeover, or some come back."""
        missing = sorted(self.first.stage_of().keys() - self.plan.stage_of().keys())
        if missing and self.rng.integers(2):
            still = frozenset(self.rng.permutation(missing)[: self.rng.integers(len(missing))].tolist())
            self.plan = self.survived(self.first, still) if still else self.first
        self.plan = plan_of_what_follows(self.plan, self.schedule.costs, self.schedule.pipeline.memory)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6))
def test_every_batch_counts_once_whoever_dies(seed: int) -> None:
    run = Run(random_schedule(seed), seed)
    scheduled = Counter(
        (part, number) for part, origin in enumerate(run.first.stages[0]) for number in range(run.first.sends[origin])
    )
    for _ in range(ITERATIONS):
        done = run.iterate()
        for kind in (Kind.FORWARD, Kind.LOSS):
            counted = Counter(
                run.sources[task.microbatch]
                for node, tasks in done.items()
                for task in tasks
                if task.kind is kind and run.plan.paths[task.microbatch][0] == node
            )
            assert counted == scheduled
        # Nobody has done what somebody else did too: its loss would count as well.
        assert (
            Counter(task for tasks in done.values() for task in tasks if task.kind is Kind.LOSS).most_common(1)[0][1]
            == 1
        )
        run.change()


def test_origins_do_die_there() -> None:
    lost = 0
    for seed in range(20):
        run = Run(random_schedule(seed), seed)
        run.iterate()
        lost += run.origins_lost
    assert lost > 5
