"""Jobs whose nodes are made to die: the main job of twenty nodes, the tests' one of six, and both in real time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from skippipe.cli.prepare import DEFAULT_CONFIG
from skippipe.config import RunConfig
from skippipe.fields import load_config
from skippipe.schedule import Plan, Schedule
from tests.small_schedule import NODES, make_workplace

MAIN_NODES, SMALL_NODES = 20, NODES
SETTING = "ca-partial"
REAL_SAMPLES = 8
REAL_MODEL = {"d-model": 128, "heads": 4, "context": 128, "vocabulary": 512}
"""Small enough for twenty nodes on two cores to end an iteration in seconds."""
REAL_SHAPES: dict[int, dict[str, object]] = {
    MAIN_NODES: {"stages": 6, "stage-sizes": "5,3,3,3,3,3", "path-length": 4, "memory": 3, "microbatches-per-node": 6},
    SMALL_NODES: {"stages": 3, "stage-sizes": "2,2,2", "path-length": 2, "memory": 2, "microbatches-per-node": 3},
}
"""Of the main job's schedule and of the tests' one."""
SEARCH_S = 20


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


def real_job(nodes: int, place: Path) -> Job:
    """A job without emulation: the nodes profile this machine, and a search on that makes the schedule, in `place`.

    RuntimeError if one of them fails.
    """
    model = {name.replace("-", "_"): value for name, value in REAL_MODEL.items() if name != "vocabulary"}
    fields = [
        *(f"model.{name}={value}" for name, value in model.items()),
        f"data.vocabulary={REAL_MODEL['vocabulary']}",
    ]
    network, schedule, file = (place / name for name in ("network.yaml", "schedule.json", "real.yaml"))
    skippipe("profile", "0", str(nodes), str(nodes), str(REAL_SAMPLES), *fields, "--out", str(network))
    asked = {"nodes": nodes, **REAL_SHAPES[nodes], **REAL_MODEL, "layers-per-stage": 1, "sync-head": "true"}
    asked |= {"samples-per-microbatch": REAL_SAMPLES, "time-budget-s": SEARCH_S, "settings": SETTING}
    flags = [text for name, value in asked.items() for text in (f"--{name}", str(value))]
    skippipe("search", "--quiet", "--network", str(network), "--out", str(schedule), *flags)
    file.write_text(
        f"schedule: {schedule}\n"
        f"model: {json.dumps(model)}\n"
        f"data: {{vocabulary: {REAL_MODEL['vocabulary']}}}\n"
        "optimizer: {learning_rate: 1.0e-3}\n"
        "emulation: {enabled: false}\n",
        encoding="utf-8",
    )
    return Job(nodes, REAL_SAMPLES, file)


def skippipe(*arguments: str) -> None:
    """Run a command of the package to its end; RuntimeError with its last words if it fails."""
    done = subprocess.run([sys.executable, "-m", "skippipe", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"skippipe {arguments[0]} failed: {done.stderr[-1000:]}")
