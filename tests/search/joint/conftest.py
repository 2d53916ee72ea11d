"""The original's schedule, from which the joint search's tests start, and the same with messages that queue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skippipe.config import CONFIGS
from skippipe.schedule import Schedule


@pytest.fixture(scope="package")
def schedule() -> Schedule:
    return Schedule.load(CONFIGS / "schedules/original-20-nodes.json")


@pytest.fixture(scope="package")
def queueing(schedule: Schedule) -> Schedule:
    hop_s = schedule.costs.hop_s
    return replace(schedule, costs=replace(schedule.costs, link_busy_s=hop_s / 2, uplink_busy_s=hop_s / 4))
