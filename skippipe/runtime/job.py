"""What a node's process is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skippipe.config import RunConfig
from skippipe.data.prepared import Prepared
from skippipe.model.checkpoint import Checkpoint
from skippipe.runtime.endpoint import Endpoint
from skippipe.runtime.share import own_device
from skippipe.schedule import Plan, Schedule


@dataclass(frozen=True)
class Job:
    """Everything that a node's process is told."""

    endpoint: Endpoint
    setting: str
    schedule: Schedule
    config: RunConfig
    prepared: Prepared
    checkpoint: Checkpoint | None
    """Where the run goes on from."""
    resume: Path | None = None
    """Where this machine's part of that lies, if the machines must agree on a checkpoint first."""

    @property
    def node(self) -> int:
        """The node's number."""
        return self.endpoint.node

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.endpoint.folder

    @property
    def plan(self) -> Plan:
        """The setting that is run."""
        return self.schedule.settings[self.setting]

    @property
    def device(self) -> str:
        """The node's torch device."""
        return own_device(self.config.device, self.endpoint)

    @property
    def first_iteration(self) -> int:
        """The iteration that the run begins with."""
        return self.checkpoint.meta.iteration if self.checkpoint else 0

    @property
    def time_scale(self) -> float:
        """What measured times are divided by."""
        return self.config.emulation.time_scale if self.config.emulation.enabled else 1.0
