"""A stage loses all of its nodes: the others skip it, and it comes back from a checkpoint or from its neighbour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skippipe.__main__ import main
from skippipe.model.checkpoint import Checkpoint, load_stage, read_checkpoint
from skippipe.reference import ReferenceTrainer
from tests.end_to_end.conftest import SECONDS, Start
from tests.end_to_end.exactness import check_exact
from tests.end_to_end.test_rejoin import Run
from tests.small_schedule import STAGES

ITERATIONS = 14


def test_a_lost_stage_is_skipped(start: Start, workplace: Path) -> None:
    run = Run(start, workplace, "skipped", 6, "peers.restart=0")
    for node in STAGES[1]:
        run.kill(node)
    _, errors = run.process.communicate(timeout=SECONDS)
    assert run.process.returncode == 0, errors
    last = run.views[-1]
    assert (last["way"], last["stages"]) == ("redo", [[0, 1], [], [4, 5]])
    assert {path[1] for path in last["paths"]} == {4, 5}
    assert "stage 1 has nobody left and is skipped" in errors
    check_exact(workplace, run.folder, run.fields, 6, lost=frozenset(STAGES[1]), views=run.views, is_complete=False)


def test_a_node_that_is_left_alone_trains_its_stage(start: Start, workplace: Path) -> None:
    run = Run(start, workplace, "left-alone", 6, "peers.restart=0")
    for node in range(1, 6):
        run.kill(node)
    _, errors = run.process.communicate(timeout=SECONDS)
    assert run.process.returncode == 0, errors
    last = run.views[-1]
    assert last["stages"] == [[0], [], []]
    assert {tuple(path) for path in last["paths"]} == {(0,)}
    lost = frozenset(range(1, 6))
    check_exact(workplace, run.folder, run.fields, 6, lost=lost, views=run.views, is_complete=False)


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_a_lost_stage_is_restored(start: Start, workplace: Path, has_checkpoint: bool) -> None:
    name = f"restored-{has_checkpoint}"
    every = 1 if has_checkpoint else ITERATIONS
    run = Run(start, workplace, name, ITERATIONS, f"checkpoint_every={every}", "checkpoints_kept=99")
    for node in STAGES[1]:
        run.kill(node)
    _, errors = run.process.communicate(timeout=SECONDS)
    assert run.process.returncode == 0, errors
    views = run.views
    lost, back = (
        next(view for view in views[place:] if bool(view["stages"][1]) == is_back)
        for place, is_back in ((0, False), ([bool(view["stages"][1]) for view in views].index(False), True))
    )
    assert views[-1]["stages"] == STAGES
    pattern = r"node [23] back in iteration (\d+) with stage 1 (.*) \(\d.\d MB in \d.\d s\)"
    iteration, source = re.findall(pattern, errors)[0]
    assert int(iteration) == back["iteration"] > lost["iteration"]

    def restore(now: int, reference: ReferenceTrainer) -> None:
        if now != back["iteration"]:
            return
        stage, optimizer = reference.stages[1], reference.optimizers[1]
        if has_checkpoint:
            load_stage(checkpoint_in(run.folder, source), stage, optimizer)
        else:
            assert source == "as the mean of stage 2, since it has no checkpoint"
            stage.load_state_dict(reference.stages[2].state_dict())
            optimizer.adamw.state.clear()

    check_exact(workplace, run.folder, run.fields, ITERATIONS, views=views, restore=restore, by_number=False)


def test_the_first_stage_is_restored_from_a_checkpoint(start: Start, workplace: Path) -> None:
    run = Run(start, workplace, "first-restored", ITERATIONS, "checkpoint_every=1", "checkpoints_kept=99")
    for node in STAGES[0]:
        run.kill(node)
    _, errors = run.process.communicate(timeout=SECONDS)
    assert run.process.returncode == 0, errors
    pattern = r"node (\d) changes to stage 0 in iteration (\d+), (of the checkpoint of iteration \d+)"
    ((node, iteration, source),) = re.findall(pattern, errors)
    views = run.views
    taken = next(view for view in views if view["stages"][0] == [int(node)])
    assert (taken["way"], taken["iteration"]) == ("redo", int(iteration))
    assert f"stage 0 restored by: {node}" in taken["reason"]
    assert views[-1]["stages"] == STAGES

    def restore(now: int, reference: ReferenceTrainer) -> None:
        if now == taken["iteration"]:
            load_stage(checkpoint_in(run.folder, source), reference.stages[0], reference.optimizers[0])

    check_exact(workplace, run.folder, run.fields, ITERATIONS, views=views, restore=restore, by_number=False)
    # What it was restored from is not in the views.
    assert main(["replay", str(run.folder)]) == 0


def checkpoint_in(folder: Path, source: str) -> Checkpoint:
    """The checkpoint that a stage was restored from."""
    done = int(re.fullmatch(r"of the checkpoint of iteration (\d+)", source)[1])  # type: ignore[index]
    found = read_checkpoint(folder / "checkpoints" / f"iteration-{done:06d}")
    assert found is not None
    return found
