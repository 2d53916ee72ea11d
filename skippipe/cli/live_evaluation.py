"""`run.sh ... --evaluate RUN`: validate a checkpoint over live nodes, of which some may be killed meanwhile.

The first node of stage 0 drives the evaluation; its death ends it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from skippipe.cli.run import make_folder, prepare_and_import
from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.schedule import Schedule


class Finished(Exception):  # noqa: N818
    """The driver has evaluated the last batch."""


class EvaluationProgress:
    """A bar, a line for each lost node, and the result; every batch goes into metrics.jsonl."""

    def __init__(self, folder: Path, stages: int, batches: int) -> None:
        self.folder, self.stages = folder, stages
        self.loss_sum, self.tokens, self.batches = 0.0, 0, 0
        self.visited: dict[tuple[int, ...], int] = {}
        self.lost: list[int] = []
        tqdm.monitor_interval = 0
        self.bar = tqdm(total=batches, unit="batch", dynamic_ncols=True, desc="evaluating")

    @property
    def perplexity(self) -> float:
        """Perplexity over all batches so far."""
        return math.exp(self.loss_sum / self.tokens)

    def on_event(self, event: dict[str, Any]) -> None:
        """Take one event of the driver; Finished at the last."""
        if event.pop("event") == "done":
            raise Finished
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")
        self.loss_sum += event["loss"] * event["tokens"]
        self.tokens += event["tokens"]
        self.batches += 1
        visited = tuple(event["visited"])
        self.visited[visited] = self.visited.get(visited, 0) + 1
        self.bar.update(1)
        self.bar.set_postfix(perplexity=f"{self.perplexity:.3f}", stages=" ".join(map(str, visited)), refresh=False)

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
    """Load the checkpoint into this machine's nodes, evaluate over them, print the result."""
    if len(local) != schedule.nodes:
        raise UserError(f"--evaluate needs all nodes on this machine: FIRST 0, LAST {schedule.nodes}")
    from skippipe.model.checkpoint import check_same_model, find_latest

    checkpoint = find_latest(path)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=str(checkpoint.tokenizer)))
    prepared = prepare_and_import(config)
    plan = schedule.settings[setting]
    check_same_model(checkpoint, config, len(plan.stages), prepared.vocabulary)
    folder = make_folder(config, setting, local)
    from skippipe.runtime.endpoint import Endpoint, open_endpoints
    from skippipe.runtime.evaluator import EvaluationJob, run_evaluator
    from skippipe.runtime.launcher import Launcher, NodeFailedError, Stopped, stop_on_signals

    samples = schedule.pipeline.samples_per_microbatch

    def run_node(endpoint: Endpoint) -> None:
        run_evaluator(EvaluationJob(endpoint, plan, config, prepared, checkpoint, samples))

    launcher = Launcher(*open_endpoints(config.peers, schedule.nodes, local, folder), run_node)
    driver = plan.stages[0][0]
    print(f"evaluating {checkpoint.folder} over {schedule.nodes} nodes, node {driver} drives, run folder {folder}")
    stop_on_signals()
    try:
        launcher.start()
        progress = EvaluationProgress(folder, len(plan.stages), config.iterations)
        while True:
            try:
                launcher.watch(progress.on_event)
            except NodeFailedError as error:
                if error.node == driver:
                    raise
                progress.lose(error.node, str(error))
    except Finished:
        progress.finish()
        return 0
    except NodeFailedError as error:
        print(f"\nerror: {error}: it drove the evaluation, which ends; see {error.log}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"\nstopped by {stopped}; every node was stopped. Logs: {folder}", file=sys.stderr)
        return 128 + stopped.number
    finally:
        launcher.stop()
