"""A search for those who go on without others: as its process does it, and never for the worse."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from skippipe.config import CONFIGS
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.subset import plan_for_all, schedule_of
from skippipe.survival.succession import check_living, plan_of_the_living, plan_of_what_follows

SECONDS = (1.0, 8.0, 64.0)
"""The search takes only time that nobody else wants: on a busy machine a second may be next to nothing."""


def heirs(schedule: Schedule, lost: set[int]) -> Plan:
    """The plan of those who go on without some nodes of ca-partial."""
    plan, moved = schedule.plan("ca-partial"), schedule.pipeline.sync_bytes
    left = plan_of_the_living(plan, lost, schedule.costs, schedule.bandwidth_gib_s, moved)
    return plan_of_what_follows(left, schedule.costs, schedule.pipeline.memory)


def test_a_process_finds_a_better_plan_for_those_who_are_left() -> None:
    schedule = Schedule.load(CONFIGS / "schedules" / "original-20-nodes.json")
    plan = heirs(schedule, {12})
    members = plan.stage_of().keys()
    text = schedule_of(schedule, members, "heirs", plan).to_json()
    for seconds in SECONDS:
        command = [sys.executable, "-m", "skippipe.search.replanning", str(seconds), "2", str(os.getpid())]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        found = plan_for_all(Schedule.from_json(done.stdout).plan("joint"), members)
        check_living(found, schedule.nodes)
        assert found.stage_of().keys() == members
        assert [len(stage) for stage in found.stages] == [len(stage) for stage in plan.stages]
        assert found.expected_step_s <= plan.expected_step_s
        # By far: heirs of a random death take 1.2 times the step of before, a search of seconds less than that step.
        if found.expected_step_s < 0.95 * plan.expected_step_s:
            return
    pytest.fail(f"no plan that is 5% better within {SECONDS[-1]} s")


def test_a_search_whose_parent_is_gone_does_nothing() -> None:
    command = [sys.executable, "-m", "skippipe.search.replanning", "1", "2", "1"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert done.stdout == ""
