"""Six nodes that are all alike, in three stages, whose times are real: a job as large or small as its model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skippipe.schedule import Costs, Schedule
from skippipe.schedule.plan import Pipeline, make_plan

NODES, SETTING, SAMPLES = 6, "ca-partial", 8
STAGES = [[0, 1], [2, 3], [4, 5]]
PATHS = [[0, 2], [0, 4], [0, 5], [1, 3], [1, 4], [1, 2]]
MEMORY = 3
"""With fewer microbatches at a time two cores would wait for each other: that is the plan's part, not the runtime's."""


@dataclass(frozen=True)
class Job:
    """What the six nodes train."""

    d_model: int
    heads: int
    context: int
    vocabulary: int
    iterations: int
    rounds: int = 2
    """How often each of the paths is taken in an iteration."""

    @property
    def microbatches(self) -> int:
        """Of an iteration."""
        return self.rounds * len(PATHS)

    @property
    def fields(self) -> list[str]:
        """Of the configuration."""
        model = [f"model.{name}={getattr(self, name)}" for name in ("d_model", "heads", "context")]
        data = [f"data.vocabulary={self.vocabulary}", f"iterations={self.iterations}", "checkpoint_every=null"]
        return [*model, *data, "emulation.enabled=false"]

    def schedule(self) -> Schedule:
        """Its paths; its times are nobody's."""
        costs = Costs(np.full(NODES, 0.1), 0.75, 2.0, 0.0, np.full((NODES, NODES), 1e-4))
        record = {"solver": "by hand", "seed": 0, "seconds": 0}
        plan = make_plan(STAGES, np.array(PATHS * self.rounds), costs, MEMORY, [0.0] * len(STAGES), record)
        pipeline = Pipeline(
            stages=len(STAGES),
            path_length=len(PATHS[0]),
            memory=MEMORY,
            layers_per_stage=1,
            d_model=self.d_model,
            heads=self.heads,
            context=self.context,
            samples_per_microbatch=SAMPLES,
            microbatches_per_node=self.microbatches // len(STAGES[0]),
            activation_bytes=4 * SAMPLES * self.context * self.d_model,
            stage_bytes=4 * 16 * self.d_model**2,
        )
        ones = np.ones((NODES, NODES))
        return Schedule("alike", ("here",) * NODES, ones, ones, pipeline, costs, {SETTING: plan})
