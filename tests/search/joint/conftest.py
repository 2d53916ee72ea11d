"""The original's schedule, from which the joint search's tests start."""

from __future__ import annotations

import pytest

from skippipe.config import CONFIGS
from skippipe.schedule import Schedule


@pytest.fixture(scope="package")
def schedule() -> Schedule:
    return Schedule.load(CONFIGS / "schedules/original-20-nodes.json")
