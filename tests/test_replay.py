"""A replay trains what a run trained whose nodes died and came back, and finds whatever was trained otherwise."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skippipe.cli import replay as command
from skippipe.config import CompressionConfig, DataConfig, ModelConfig, RunConfig
from skippipe.data.batches import prepare
from skippipe.errors import UserError
from skippipe.model.checkpoint_meta import Meta
from skippipe.reference import ReferenceTrainer
from skippipe.report.metrics import IterationMetrics, append_metrics
from skippipe.report.run_folder import make_run_folder
from skippipe.report.views import VIEWS, append_views, read_views
from skippipe.schedule import Plan
from skippipe.survival.skipping import paths_without
from skippipe.survival.succession import plan_of_the_living
from skippipe.survival.view import View, Way
from tests.small_schedule import small_schedule
from tests.survival.instances import random_losses

SCHEDULE = small_schedule()
FIRST = SCHEDULE.plan("ca-partial")
SAMPLES, CONTEXT, ITERATIONS = 2, 16, 6


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text.txt").write_text("".join(f"line {i} of {i * i % 97} words\n" for i in range(3000)))
    data = DataConfig(source="files", paths=(str(folder / "text.txt"),), vocabulary=300, cache=str(folder))
    return RunConfig(model=ModelConfig(d_model=16, heads=2, context=CONTEXT), data=data)


def living(plan: Plan, lost: frozenset[int]) -> Plan:
    return plan_of_the_living(plan, lost, SCHEDULE.costs, SCHEDULE.bandwidth_gib_s, SCHEDULE.pipeline.sync_bytes)


class Folder:
    """The folder of a run that one process trains."""

    def __init__(self, path: Path, config: RunConfig, first: int = 0, plan: Plan = FIRST) -> None:
        self.config = dataclasses.replace(config, runs=str(path), name="run")
        self.path = make_run_folder(self.config, "ca-partial", 0)
        self.trainer = ReferenceTrainer(self.config, plan, SAMPLES, prepare(config.data))
        self.views: list[View] = []
        self.iteration = first
        self.view("start", plan)

    def view(self, way: Way, plan: Plan, iteration: int | None = None) -> None:
        """Another view."""
        first = self.iteration if iteration is None else iteration
        self.views.append(View(len(self.views), first, way, "what changed", plan, first - 1))
        append_views(self.path, [self.views[-1].document()])

    def train(self, iterations: int = 1, **otherwise: Any) -> None:
        """Go on; a line of metrics may say something else."""
        for _ in range(iterations):
            loss = self.trainer.train_iteration(self.iteration)
            tokens = len(FIRST.paths) * SAMPLES * CONTEXT
            line = IterationMetrics(self.iteration, loss, self.trainer.gradient_norm, 1.0, 1.0, tokens, 1.0, 0)
            append_metrics(self.path, dataclasses.replace(line, **otherwise))
            self.iteration += 1

    def save(self) -> None:
        """Make a checkpoint."""
        vocabulary = self.trainer.prepared.vocabulary
        self.trainer.save(self.path, Meta(self.iteration, 3, vocabulary, "ca-partial", "0", "1", self.config))

    def replay(self, *arguments: str) -> int:
        """The exit code of the command."""
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args([str(self.path), *arguments]))

    def edit(self, number: int, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a line of the views."""
        lines = [json.loads(line) for line in (self.path / VIEWS).read_text().splitlines()]
        change(lines[number])
        (self.path / VIEWS).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("seed", range(4))
def test_heirs_and_those_who_come_back_train_what_undisturbed_nodes_do(
    config: RunConfig, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rng, plan = Folder(tmp_path, config), np.random.default_rng(seed), FIRST
    while folder.iteration < ITERATIONS:
        if lost := random_losses(plan, rng):
            plan = living(plan, lost)
            folder.view("takeover", plan)
        folder.train()
        if rng.integers(2):
            plan = FIRST
            folder.view("boundary", plan)
    folder.save()
    assert folder.replay() == 0
    table = capsys.readouterr().out
    assert len([line for line in table.splitlines() if "what changed" in line]) == len(folder.views) > 2
    assert "what one process trains" in table


def test_a_path_that_leads_elsewhere_is_found(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(tmp_path, config)
    folder.train(2)
    folder.view("takeover", living(FIRST, frozenset({2})))
    folder.train(2)
    folder.save()
    assert folder.replay() == 0

    def visit_another_stage(view: dict[str, Any]) -> None:
        assert view["paths"][0] == [0, 3]
        view["paths"][0] = [0, 4]

    folder.edit(1, visit_another_stage)
    capsys.readouterr()
    assert folder.replay() == 1
    assert "above 1e-05 is in the loss of iteration 2 (view 1)" in capsys.readouterr().out
    assert folder.replay("--tolerance", "1e9") == 0


def test_only_views_that_iterations_were_done_in_count(config: RunConfig, tmp_path: Path) -> None:
    folder = Folder(tmp_path, config)
    folder.train(2)
    # Nobody begins with iteration 4 in the view that says so: a node is lost before.
    elsewhere = dataclasses.replace(FIRST, paths=((0, 4), *FIRST.paths[1:]))
    folder.view("boundary", elsewhere, iteration=4)
    folder.view("takeover", living(FIRST, frozenset({2})), iteration=3)
    folder.train(3)
    folder.save()
    assert folder.replay() == 0
    # In another one they do.
    folder.view("boundary", elsewhere)
    folder.trainer.take_up(elsewhere)
    folder.train(1)
    folder.save()
    assert folder.replay() == 0
    folder.edit(3, lambda view: view.update(paths=[list(path) for path in FIRST.paths]))
    assert folder.replay() == 1


def test_a_last_gradient_and_last_weights_are_looked_at(config: RunConfig, tmp_path: Path) -> None:
    folder = Folder(tmp_path, config)
    folder.train(1)
    folder.train(1, gradient_norm=folder.trainer.gradient_norm)
    assert folder.replay() == 1
    folder = Folder(tmp_path / "weights", config)
    folder.train(2)
    with torch.no_grad():
        next(folder.trainer.stages[1].parameters()).mul_(1.0001)
    folder.save()
    assert folder.replay() == 1


def test_what_was_dropped_was_not_finite(config: RunConfig, tmp_path: Path) -> None:
    folder = Folder(tmp_path, config)
    folder.train(1)
    folder.train(1, dropped="the loss at node 0")
    assert folder.replay() == 1
    broken = Folder(tmp_path / "broken", config)
    with torch.no_grad():
        next(broken.trainer.stages[1].parameters()).fill_(math.nan)
    broken.train(1, dropped="the loss at node 0")
    assert broken.replay() == 1


def test_a_resumed_run_goes_on_from_its_checkpoint(config: RunConfig, tmp_path: Path) -> None:
    before = Folder(tmp_path / "before", config)
    before.train(2)
    before.save()
    folder = Folder(tmp_path, config, first=2)
    folder.trainer = before.trainer
    folder.train(2)
    assert folder.replay("--resume", str(before.path)) == 0
    with pytest.raises(UserError, match="begins with iteration 2, not 0; name the checkpoint"):
        folder.replay()


def test_a_compressed_sync_of_other_replicas_is_replayed(config: RunConfig, tmp_path: Path) -> None:
    compressed = dataclasses.replace(config, compression=CompressionConfig(sync="int8"))
    folder = Folder(tmp_path, compressed)
    folder.train(2)
    codecs = dict(folder.trainer.codec_of)
    left = {replica: codec.left_out.clone() for replica, codec in codecs.items()}
    folder.view("takeover", living(FIRST, frozenset({2})))
    folder.trainer.take_up(folder.views[-1].plan)
    folder.train(1)
    # Node 3 is alone and writes nothing; the others go on with what they had left out.
    assert torch.equal(codecs[1, 3].left_out, left[1, 3])
    assert not torch.equal(codecs[0, 0].left_out, left[0, 0])
    folder.view("boundary", FIRST)
    folder.trainer.take_up(FIRST)
    assert folder.trainer.codec_of[1, 3] is codecs[1, 3]
    assert not folder.trainer.codec_of[1, 2].left_out.any()
    folder.train(1)
    assert folder.replay("--tolerance", "1e-9") == 0


def test_it_ends_where_a_lost_stage_is_back(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = (FIRST.stages[0], (), FIRST.stages[2])
    skipping = dataclasses.replace(FIRST, stages=stages, paths=paths_without(FIRST, stages, SCHEDULE.costs, True))
    folder = Folder(tmp_path, config)
    folder.train(2)
    folder.view("redo", skipping)
    folder.trainer.take_up(skipping)
    folder.train(1)
    # Passed over: the stage is not back yet.
    folder.view("boundary", FIRST, iteration=4)
    folder.view("takeover", skipping, iteration=3)
    folder.train(1)
    back = dataclasses.replace(
        FIRST, stages=(FIRST.stages[0], (2,), FIRST.stages[2]), paths=((0, 2), *skipping.paths[1:])
    )
    folder.view("boundary", back)
    for number in (1, 3, 4):
        folder.edit(number, lambda view: view.update(resumed_s=1.0))
    # Whatever it was restored from, nobody can train it again.
    folder.train(2, gradient_norm=0.5)
    assert folder.replay() == 0
    table = capsys.readouterr().out
    assert "a stage that was lost is back in view 4: nothing after that is compared" in table
    assert [line.split()[1:4] for line in table.splitlines()[1:6]] == [
        ["0", "to", "1"],
        ["2", "to", "2"],
        ["none", "-", "-"],
        ["3", "to", "3"],
        ["none", "-", "-"],
    ]


def test_what_is_saved_of_the_living_stages_is_looked_at_while_one_is_lost(config: RunConfig, tmp_path: Path) -> None:
    stages = (FIRST.stages[0], (), FIRST.stages[2])
    skipping = dataclasses.replace(FIRST, stages=stages, paths=paths_without(FIRST, stages, SCHEDULE.costs, True))
    for factor, code in ((1.0, 0), (1.0001, 1)):
        folder = Folder(tmp_path / str(factor), config)
        folder.train(2)
        folder.view("redo", skipping)
        folder.trainer.take_up(skipping)
        folder.train(2)
        with torch.no_grad():
            next(folder.trainer.stages[2].parameters()).mul_(factor)
        folder.save()
        (lost,) = folder.path.glob("checkpoints/*/stage-1.safetensors")
        lost.unlink()
        assert folder.replay() == code


def double_visit(view: dict[str, Any]) -> None:
    view["paths"][0] = [0, 2, 3]


UNSOUND: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing number": (lambda view: view.update(number=2), "view 2 where 1 is due"),
    "twice": (lambda view: view.update(number=0), "view 0 where 1 is due"),
    "no paths": (lambda view: view.pop("paths"), "line 2 holds no view .*'paths' is missing"),
    "other microbatches": (lambda view: view["paths"].pop(), "other microbatches"),
    "a member of no stage": (lambda view: view["members"].append(9), "not the same nodes"),
    "a node of two stages": (lambda view: view["stages"][1].append(0), "not the same nodes"),
    "a path of the lost": (lambda view: view["paths"].__setitem__(0, [0, 9]), "microbatch 0"),
    "a path from elsewhere": (lambda view: view["paths"].__setitem__(0, [3, 0]), "microbatch 0"),
    "a stage twice": (double_visit, "microbatch 0"),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_unsound_views_are_refused(config: RunConfig, tmp_path: Path, case: str) -> None:
    folder = Folder(tmp_path, config)
    folder.view("boundary", FIRST, iteration=1)
    assert [view.number for view in read_views(folder.path)] == [0, 1]
    change, message = UNSOUND[case]
    folder.edit(1, change)
    with pytest.raises(UserError, match=message):
        read_views(folder.path)


def test_what_can_not_be_replayed_is_refused(config: RunConfig, tmp_path: Path) -> None:
    folder = Folder(tmp_path, config)
    with pytest.raises(UserError, match="metrics"):
        folder.replay()
    folder.train(1)
    with pytest.raises(UserError, match="--tolerance must be above 0"):
        folder.replay("--tolerance", "0")
    folder.iteration = 2
    folder.train(1)
    with pytest.raises(UserError, match="iteration 2 where 1 is due"):
        folder.replay()
    coded = Folder(tmp_path / "coded", dataclasses.replace(config, compression=CompressionConfig(encoding="bf16")))
    coded.train(1)
    with pytest.raises(UserError, match=r"compression\.encoding is bf16"):
        coded.replay()
