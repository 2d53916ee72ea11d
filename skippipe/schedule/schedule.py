"""The schedule as an object: loading, saving, validating and simulating what a schedule file holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from skippipe.errors import UserError
from skippipe.schedule import file
from skippipe.schedule.content import Content
from skippipe.schedule.costs import Costs
from skippipe.schedule.plan import Pipeline, timed
from skippipe.schedule.timeline import Timeline, plan_timeline
from skippipe.schedule.validation import validate


@dataclass(frozen=True)
class Schedule(Content):
    """Network, pipeline, costs and one plan a setting; everything that passes from search to runtime."""

    def simulate(self, setting: str) -> Timeline:
        """Start and end of every task, hop and sync of an iteration whose nodes follow the setting's orders."""
        return plan_timeline(self.plan(setting), self.costs)

    def with_samples(self, samples: int) -> Self:
        """The same plans for another number of samples in a microbatch: costs scaled, times simulated again."""
        pipeline = self.pipeline
        ratio = samples / pipeline.samples_per_microbatch
        bytes_now = pipeline.activation_bytes * samples // pipeline.samples_per_microbatch
        pipeline = replace(pipeline, samples_per_microbatch=samples, activation_bytes=bytes_now)
        return self.with_costs(self.costs.for_samples(ratio, self.transfer_s), pipeline)

    def with_costs(self, costs: Costs, pipeline: Pipeline | None = None) -> Self:
        """The same plans on other costs, and for another pipeline if one is given: times simulated again."""
        plans = {name: timed(plan, costs, plan.starts(costs)) for name, plan in self.settings.items()}
        return replace(self, costs=costs, pipeline=pipeline or self.pipeline, settings=plans)

    def validate(self) -> None:
        """Refuse whatever can't be run, naming setting, node and task (UserError); see validation.py."""
        validate(self)

    def to_json(self) -> str:
        """The schedule file's text; reading it and writing it again gives the same bytes."""
        return file.write(self)

    @classmethod
    def from_json(cls, text: str, where: str = "schedule") -> Self:
        """Read and validate a schedule file's text, or the original's; UserError begins with `where`."""
        return cls(**vars(file.read(text, where)))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and validate a schedule file, ours or the original's; a bare name is one of those that are shipped."""
        path = file.find_schedule(path)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: can't be read ({error.strerror or error})") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a text file; expected the JSON that create_schedule.py writes") from None
        return cls.from_json(text, str(path))

    def save(self, path: str | Path) -> None:
        """Write the schedule file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")
