"""Training from Python: a schedule's nodes as processes of this machine, started as run.sh starts them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.schedule import Schedule

USER_ERROR_EXIT = 2


@dataclass(frozen=True)
class Run:
    """A run that has ended well."""

    folder: Path
    """What it left: metrics.jsonl, timeline.jsonl, checkpoints, logs."""
    summary: dict[str, Any]
    """Contents of summary.json: losses, measured and expected times."""


class TrainingFailedError(RuntimeError):
    """A run that ended before its time; the message names its folder, its nodes' logs lie there."""


def train(schedule: Schedule, setting: str, config: RunConfig | None = None) -> Run:
    """Train all nodes of a schedule's setting on this machine, with progress on stderr, and wait for the end.

    The nodes are processes of another interpreter, so this one may have threads. config.schedule is ignored: the
    schedule is written into the run's folder. Ctrl-C stops every node. Raises UserError for what can't be run and
    TrainingFailedError if a node fails.
    """
    config = config or RunConfig()
    schedule.plan(setting)
    name = config.name or f"{setting}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(config.runs).absolute() / name
    folder.mkdir(parents=True, exist_ok=True)
    schedule.save(folder / "schedule.json")
    fields = dataclasses.replace(config, schedule=str(folder / "schedule.json"), runs=str(folder.parent), name=name)
    # JSON is YAML, and what run.sh reads is YAML.
    (folder / "train.yaml").write_text(json.dumps(dataclasses.asdict(fields), indent=1) + "\n", encoding="utf-8")
    samples = schedule.pipeline.samples_per_microbatch
    command = [sys.executable, "-m", "skippipe", "run", "0", str(schedule.nodes), setting, str(samples)]
    code = wait_for([*command, str(folder / "train.yaml")])
    if code == USER_ERROR_EXIT:
        raise UserError(f"{folder} can't be trained; the line above says why")
    if code != 0:
        raise TrainingFailedError(f"training ended with exit code {code}; its nodes' logs: {folder}")
    return Run(folder, json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def wait_for(command: list[str]) -> int:
    """Run a command to its end; its exit code. An interrupt is passed on, so that it can end its own processes."""
    # A session of its own: a terminal's Ctrl-C comes to it once, through us.
    # As in run.sh: the launcher must have no threads when it forks the nodes.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, **threads})
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
