"""What it costs to change to a plan in which nodes hold other stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skippipe.runtime.replanner import moving_seconds
from tests.small_schedule import small_schedule

VOCABULARY = 300
LAYER = 4 * 64**2 + 3 * 64 * 256 + 2 * 64
HEAD = 2 * VOCABULARY * 64 + 64


def test_a_donor_sends_one_state_after_the_other_and_stage_0_has_more() -> None:
    schedule = small_schedule()
    bandwidth = np.ones((6, 6))
    bandwidth[0, 2], bandwidth[2, 1] = 0.5, 0.25
    schedule = replace(schedule, bandwidth_gib_s=bandwidth, latency_ms=np.full((6, 6), 3.0))
    plan = schedule.plan("ca-partial")
    assert moving_seconds(schedule, VOCABULARY, plan, plan) == 0.0
    # Node 2 gets stage 0 of node 0, node 1 stage 1 of node 2, node 5 too: of node 2, one after the other.
    moved = replace(plan, stages=((0, 2), (1, 3, 5), (4,)))
    origin = 12 * (LAYER + HEAD) / (0.5 * 2**30) + 0.003
    others = 12 * LAYER * (1 / 0.25 + 1) / 2**30 + 2 * 0.003
    assert others > origin
    assert moving_seconds(schedule, VOCABULARY, plan, moved) == pytest.approx(others)
