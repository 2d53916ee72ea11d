"""The paper's own settings."""

from __future__ import annotations

from skippipe.config import CONFIGS
from skippipe.schedule import Schedule
from skippipe.search.partial import solve_ca_partial
from skippipe.search.problem import Instance
from tests.search.instances import light_options

ORIGINAL = CONFIGS / "schedules/original-20-nodes.json"


def test_the_originals_solution_is_found_on_its_stages() -> None:
    instance = Instance.from_schedule(Schedule.load(ORIGINAL), "ca-partial")
    options = light_options(constraint_sets=100, pipeline_steps=20_000, path_steps=2_000)
    assert solve_ca_partial(instance, options).expected_iteration_s <= 33.4
