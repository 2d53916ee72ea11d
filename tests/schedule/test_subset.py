"""A schedule for some of the nodes is what the whole one is without the others."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skippipe.schedule.subset import plan_for_all, schedule_of
from skippipe.survival.succession import plan_of_the_living, plan_of_what_follows
from tests.survival.instances import random_losses, random_schedule


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_same_plan_takes_as_long_among_fewer_nodes(seed: int) -> None:
    schedule = random_schedule(seed)
    plan, lost = schedule.plan("any"), random_losses(schedule.plan("any"), np.random.default_rng(seed))
    left = plan_of_the_living(plan, lost, schedule.costs, schedule.bandwidth_gib_s, schedule.pipeline.sync_bytes)
    left = plan_of_what_follows(left, schedule.costs, schedule.pipeline.memory)
    members = left.stage_of().keys()
    alone = schedule_of(schedule, members, "heirs", left)
    found = alone.plan("heirs")
    assert alone.nodes == len(members)
    assert sorted(found.stage_of()) == list(range(len(members)))
    steps = found.starts(alone.costs)
    np.testing.assert_allclose(steps, left.starts(schedule.costs), rtol=1e-12)
    again = plan_for_all(found, members)
    assert (again.stages, again.paths, again.order) == (left.stages, left.paths, left.order)
    for ours, theirs in ((alone.bandwidth_gib_s, schedule.bandwidth_gib_s), (alone.latency_ms, schedule.latency_ms)):
        kept = sorted(members)
        assert all(ours[a, b] == theirs[kept[a], kept[b]] for a in range(len(kept)) for b in range(len(kept)))
