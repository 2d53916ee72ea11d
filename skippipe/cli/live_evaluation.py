"""`run.sh ... --evaluate RUN`: validate a checkpoint over live nodes, of which some may be killed meanwhile.

The first node of stage 0 drives the evaluation: its death ends it, and its machine has the result.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from skippipe.cli.launch import launch
from skippipe.cli.prepare import prepare_and_import
from skippipe.config import RunConfig
from skippipe.report.metrics import BatchMetrics, append_metrics
from skippipe.report.run_folder import make_run_folder
from skippipe.runtime.events import EvaluationDone, Event
from skippipe.schedule import Schedule

if TYPE_CHECKING:
    from skippipe.runtime.endpoint import Endpoint
    from skippipe.runtime.launcher import Launcher
    from skippipe.runtime.processes import NodeFailedError


class Finished(Exception):  # noqa: N818
    """The driver has evaluated the last batch."""


class EvaluationProgress:
    """A bar, a line for each lost node, and the result; every batch goes into metrics.jsonl."""

    def __init__(self, folder: Path, stages: int, batches: int, is_driven_here: bool) -> None:
        self.folder, self.stages = folder, stages
        self.loss_sum, self.tokens, self.batches = 0.0, 0, 0
        self.visited: dict[tuple[int, ...], int] = {}
        self.lost: list[int] = []
        tqdm.monitor_interval = 0
        self.bar = tqdm(total=batches, unit="batch", dynamic_ncols=True, desc="evaluating", disable=not is_driven_here)

    @property
    def perplexity(self) -> float:
        """Perplexity over all batches so far."""
        # Imported here: torch is loaded by now, and is not when arguments are wrong.
        from skippipe.model.inference import perplexity_of

        return perplexity_of(self.loss_sum / self.tokens)

    def on_event(self, event: Event) -> None:
        """Take one event of the driver; Finished at the last."""
        if isinstance(event, EvaluationDone):
            raise Finished
        assert isinstance(event, BatchMetrics), f"{event} is no event of an evaluation"
        append_metrics(self.folder, event)
        self.loss_sum += event.loss * event.tokens
        self.tokens += event.tokens
        self.batches += 1
        self.visited[event.visited] = self.visited.get(event.visited, 0) + 1
        self.bar.update(1)
        stages = " ".join(map(str, event.visited))
        self.bar.set_postfix(perplexity=f"{self.perplexity:.3f}", stages=stages, refresh=False)

    def lose(self, node: int, reason: str) -> None:
        """Say that a node is gone."""
        self.lost.append(node)
        self.bar.write(f"{reason}; the evaluation goes on without it", file=sys.stderr)

    def finish(self) -> None:
        """Print the result."""
        self.bar.close()
        print(f"perplexity {self.perplexity:.4f} over {self.batches} batches; nodes lost: {listed(self.lost)}")
        for visited, batches in self.visited.items():
            omitted = [stage for stage in range(self.stages) if stage not in visited]
            print(f"{batches} batches visited stages {listed(visited)}; left out: {listed(omitted)}")


def listed(numbers: list[int] | tuple[int, ...]) -> str:
    """Numbers for a sentence."""
    return " ".join(map(str, numbers)) or "none"


def run_evaluation(path: Path, config: RunConfig, schedule: Schedule, setting: str, local: range) -> int:
    """Load the checkpoint into this machine's nodes, evaluate over all nodes, print the result if it is driven here."""
    from skippipe.model.checkpoint import check_same_model, find_latest

    checkpoint = find_latest(path)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=str(checkpoint.tokenizer)))
    prepared = prepare_and_import(config)
    plan = schedule.settings[setting]
    check_same_model(checkpoint, config, len(plan.stages), prepared.vocabulary)
    folder = make_run_folder(config, setting, local.start)
    from skippipe.runtime.equal import equal_fields
    from skippipe.runtime.evaluator import EvaluationJob, run_evaluator

    fields = equal_fields(schedule, setting, config, prepared)
    fields["the checkpoint"] = f"{checkpoint.meta.identity} after {checkpoint.meta.iteration} iterations"

    driver, samples = plan.stages[0][0], schedule.pipeline.samples_per_microbatch

    def run_node(endpoint: Endpoint) -> None:
        run_evaluator(EvaluationJob(endpoint, plan, config, prepared, checkpoint, samples))

    def follow(launcher: Launcher) -> int:
        print(f"evaluating {checkpoint.folder} over {schedule.nodes} nodes, node {driver} drives, run folder {folder}")
        progress = EvaluationProgress(folder, len(plan.stages), config.iterations, driver in local)
        watch_evaluation(launcher, progress, driver)
        return 0

    def explain(error: NodeFailedError) -> str:
        why = "the evaluation ends" if error.of_another else "it drove the evaluation, which ends"
        return f"{error}: {why}; see {error.log}"

    return launch(config.peers, schedule.nodes, local, folder, fields, run_node, follow, explain, f". Logs: {folder}")


def watch_evaluation(launcher: Launcher, progress: EvaluationProgress, driver: int) -> None:
    """Show progress until the last batch is evaluated; of the nodes that fail, only the driver ends it."""
    from skippipe.runtime.processes import NodeFailedError

    try:
        while True:
            try:
                launcher.watch(progress.on_event)
                print(f"nothing is left to do here; the machine of node {driver} has the result")
                return
            except NodeFailedError as error:
                if error.of_another:
                    # It has lost the driver, or finds that machines differ; the others here have nothing to save.
                    launcher.stop()
                if error.node == driver or error.of_another:
                    raise
                progress.lose(error.node, str(error))
    except Finished:
        progress.finish()
