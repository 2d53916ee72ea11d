"""What a schedule file holds, as data: the network, the pipeline, the costs, and one plan a setting."""

from __future__ import annotations

from dataclasses import dataclass

from skippipe.errors import UserError
from skippipe.schedule.arrays import Floats
from skippipe.schedule.costs import Costs, transfer_seconds
from skippipe.schedule.plan import Pipeline, Plan


@dataclass(frozen=True)
class Content:
    """Everything that passes from search to runtime; Schedule adds what can be done with it."""

    network_name: str
    locations: tuple[str, ...]
    """Location of each node."""
    latency_ms: Floats
    """One way from node to node, (nodes, nodes)."""
    bandwidth_gib_s: Floats
    """From node to node in GiB/s, (nodes, nodes)."""
    pipeline: Pipeline
    costs: Costs
    settings: dict[str, Plan]

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.locations)

    @property
    def transfer_s(self) -> Floats:
        """Seconds that an activation's bytes take from node to node, latency and copies left out, (nodes, nodes)."""
        return transfer_seconds(self.pipeline.hop_bytes, self.bandwidth_gib_s)

    def plan(self, setting: str, where: str = "schedule") -> Plan:
        """The plan of a setting; UserError names those that there are."""
        if setting not in self.settings:
            have = ", ".join(self.settings)
            raise UserError(f"{where} has no setting {setting!r}, only {have}; make one with create_schedule.py")
        return self.settings[setting]
