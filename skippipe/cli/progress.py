"""What the user sees of a run while its nodes work."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from skippipe.config import RunConfig
from skippipe.report.metrics import Metrics
from skippipe.schedule import Schedule


class Progress:
    """What the user sees while the nodes work: a line when they are ready, a bar, a summary."""

    def __init__(
        self, schedule: Schedule, setting: str, config: RunConfig, folder: Path, nodes: int, began: float
    ) -> None:
        self.plan = schedule.settings[setting]
        self.schedule, self.setting, self.folder, self.nodes, self.began = schedule, setting, folder, nodes, began
        self.metrics = Metrics(folder)
        self.ready = 0
        # Without its monitor thread, which would poll in the background.
        tqdm.monitor_interval = 0
        self.bar = tqdm(total=config.iterations, unit="step", dynamic_ncols=True, desc="starting nodes")
        self.shown: dict[str, str] = {"expected": f"{self.plan.expected_step_s:.1f} s"}

    def on_event(self, event: dict[str, Any]) -> None:
        """Take one event from a node."""
        kind = event.pop("event")
        if kind == "ready":
            self.ready += 1
            self.bar.set_description(f"{self.ready} of {self.nodes} nodes ready")
            if self.ready == self.nodes:
                self.bar.write(f"{self.nodes} nodes ready {time.monotonic() - self.began:.1f} s after the start")
                self.bar.set_description(self.setting)
        elif kind == "loss":
            self.shown["loss"] = f"{event['loss']:.3f}"
            self.bar.update(1)
            self.bar.set_postfix(self.shown)
        else:
            self.metrics.add(event)
            self.shown["step"] = f"{event['step_s']:.1f} s"
            self.bar.set_postfix(self.shown)

    def finish(self) -> None:
        """Write and print the summary."""
        self.bar.close()
        summary = self.metrics.summary(self.setting, self.schedule.nodes, self.plan)
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        print(f"\n{'setting':24} {self.setting}, {self.schedule.nodes} nodes, {summary['iterations']} iterations")
        print(f"{'loss':24} {summary['loss_first']:.3f} first, {summary['loss_last']:.3f} last (nats a token)")
        for name in ("iteration", "step"):
            measured, expected = summary[f"measured_{name}_s"], summary[f"expected_{name}_s"]
            print(f"{name:24} {measured:.2f} s measured (median), {expected:.2f} s expected")
        print(f"{'measured over expected':24} {summary['measured_over_expected']:.3f} (steps)")
        print(f"{'tokens a second':24} {summary['tokens_per_second']:.0f} (real time)")
        print(f"{'bytes sent':24} {summary['bytes_sent'] / 1e6:.1f} MB")
        print(f"{'run folder':24} {self.folder}")
