"""The two jobs whose nodes are made to die: the main job of twenty nodes, and the tests' small one of six."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from skippipe.cli.prepare import DEFAULT_CONFIG
from skippipe.config import RunConfig
from skippipe.fields import load_config
from skippipe.schedule import Plan, Schedule
from tests.small_schedule import NODES, make_workplace

MAIN_NODES, SMALL_NODES = 20, NODES
SETTING = "ca-partial"


class Job(NamedTuple):
    """What `skippipe run` takes before the fields that are changed."""

    nodes: int
    samples: int
    file: Path
    """Configuration."""

    @property
    def arguments(self) -> list[str]:
        """Of the command, up to the configuration."""
        return ["0", str(self.nodes), SETTING, str(self.samples), str(self.file)]

    @property
    def plan(self) -> Plan:
        """That its runs begin with."""
        return Schedule.load(load_config(RunConfig, self.file, ()).schedule).plan(SETTING)


def job_of(nodes: int, place: Path) -> Job:
    """The job of so many nodes; what the small one needs is made in the folder `place`, unless it is there."""
    if nodes == MAIN_NODES:
        return Job(nodes, 8, DEFAULT_CONFIG)
    assert nodes == SMALL_NODES
    if not (place / "small.yaml").exists():
        place.mkdir(parents=True, exist_ok=True)
        make_workplace(place)
    return Job(nodes, 2, place / "small.yaml")
