"""Nodes die at every moment of an iteration: the others take over, and losses and weights stay those undisturbed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from skippipe.model.checkpoint import read_checkpoint
from skippipe.model.gradient_codec import GradientCodec
from skippipe.reference import ReferenceTrainer
from skippipe.replay import tensor_difference
from skippipe.schedule.plan import make_plan
from skippipe.schedule.timeline import SYNC
from tests.end_to_end.conftest import SECONDS, Start
from tests.end_to_end.dying import CUT, Moment
from tests.end_to_end.exactness import check_exact
from tests.end_to_end.timing import Timing
from tests.small_schedule import STAGES, small_schedule

ITERATIONS = 4
WHO = {
    Moment.FIRST_TASK: 1,
    Moment.MIDDLE_TASK: 3,
    Moment.LAST_TASK: 0,
    Moment.SYNC: 2,
    Moment.FIGURES: 5,
    Moment.TOLD_ONE: 0,
    Moment.COMMITTED: 4,
    Moment.STEPPED: 1,
}
"""Origins, relays, leaders of stages and others, the root of the tree, who proposes and who reports."""


def disturb(start: Start, workplace: Path, name: str, patch: tuple[str, str], *more: str) -> tuple[Path, str, str]:
    """A run that is disturbed so; its folder, and what it printed."""
    fields = [f"iterations={ITERATIONS}", f"name={name}", f"checkpoint_every={ITERATIONS}", "peers.restart=0", *more]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, patched=("dying", *patch))
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / name
    check_exact(workplace, folder, fields, ITERATIONS, lost=missing(folder))
    return folder, output, errors


def missing(folder: Path) -> frozenset[int]:
    """Nodes that are in no stage at the end."""
    return frozenset(range(6)) - set(json_lines(folder / "views.jsonl")[-1]["members"])


def json_lines(path: Path) -> list[dict]:
    """Objects of a file that has one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


REAL = (Moment.MIDDLE_TASK, Moment.SYNC, Moment.COMMITTED)
"""What is tried in real time too."""


@pytest.mark.parametrize(
    ("moment", "timing"),
    [*((moment, Timing.EMULATED) for moment in WHO), *((moment, Timing.REAL) for moment in REAL)],
)
def test_a_node_dies_and_nothing_changes(start: Start, workplace: Path, moment: Moment, timing: Timing) -> None:
    lost = WHO[moment]
    patch, name = (moment.name, str(lost)), f"dies-{moment.name}-{timing.name}"
    folder, output, errors = disturb(start, workplace, name, patch, "timeline_every=3", *timing.fields)
    views = json_lines(folder / "views.jsonl")
    assert [view["number"] for view in views] == [0, 1]
    assert (views[1]["way"], views[1]["iteration"]) == ("takeover", moment.iteration)
    assert views[1]["members"] == [node for node in range(6) if node != lost]
    assert views[1]["reason"] == f"lost: {lost}"
    assert f"node {lost} lost in iteration {moment.iteration} (killed by SIGKILL):" in errors
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["views"], summary["nodes_lost"]) == (2, 1)
    assert "nodes lost" in output
    if moment is Moment.TOLD_ONE:
        # What was sent in it is counted once, though the figures came with the view.
        sent = [line["bytes_sent"] for line in json_lines(folder / "metrics.jsonl")]
        assert max(sent) < 1.5 * sent[0]
    # All write the iteration of the loss too, whoever knew of it first.
    synced = [
        (line["iteration"], line["node"]) for line in json_lines(folder / "timeline.jsonl") if line["task"] == SYNC
    ]
    everyone, living = range(6), views[1]["members"]
    written = {0: everyone, moment.iteration: living, 3: living}
    assert sorted(synced) == [(iteration, node) for iteration, nodes in written.items() for node in nodes]


@pytest.mark.parametrize(("moment", "timing"), [(Moment.COMMITTED, Timing.EMULATED), (Moment.STEPPED, Timing.REAL)])
def test_figures_that_nobody_has_told_yet_are_told(
    start: Start, workplace: Path, moment: Moment, timing: Timing
) -> None:
    # Node 0 speaks for the machine; the others notice its death in the next iteration.
    folder, *_ = disturb(start, workplace, f"speaker-{moment.name}", (moment.name, "0"), *timing.fields)
    assert [line["iteration"] for line in json_lines(folder / "metrics.jsonl")] == list(range(ITERATIONS))
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["iterations"], summary["views"]) == (ITERATIONS, 2)


@pytest.mark.parametrize("timing", Timing)
def test_who_proposes_dies_while_it_takes_over_from_another(start: Start, workplace: Path, timing: Timing) -> None:
    moment = (Moment.MIDDLE_TASK.name, "3,0")
    folder, _, errors = disturb(start, workplace, f"second-death-{timing.name}", moment, *timing.fields)
    _, *later = json_lines(folder / "views.jsonl")
    assert later[-1]["members"] == [1, 2, 4, 5]
    assert {(view["way"], view["iteration"]) for view in later} == {("takeover", 1)}
    assert [line["iteration"] for line in json_lines(folder / "metrics.jsonl")] == list(range(ITERATIONS))
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["nodes_lost"], summary["iterations_redone"]) == (2, 0)
    # Node 0 spoke for the machine, and has not told of the first loss.
    for node in (0, 3):
        assert errors.count(f"node {node} lost in iteration 1 (killed by SIGKILL):") == 1


@pytest.mark.parametrize("timing", Timing)
def test_what_an_heir_has_done_stays_if_another_node_dies_before_its_sync_begins_again(
    start: Start, workplace: Path, timing: Timing
) -> None:
    # Node 3 is in the sync with node 2 when that dies, and works for it when node 4 dies.
    moment = (Moment.SYNC.name, "2,4@3")
    folder, *_ = disturb(start, workplace, f"undone-twice-{timing.name}", moment, *timing.fields)
    assert [view["reason"] for view in json_lines(folder / "views.jsonl")[1:]] == ["lost: 2", "lost: 4"]


@pytest.mark.parametrize("timing", Timing)
def test_a_node_dies_while_it_saves_and_its_replica_saves_from_then_on(
    start: Start, workplace: Path, timing: Timing
) -> None:
    moment, more = (Moment.SAVING.name, "2"), ["checkpoint_every=1", "checkpoints_kept=9", *timing.fields]
    folder, *_ = disturb(start, workplace, f"saving-{timing.name}", moment, *more)
    (saved,) = {path.parent for path in folder.rglob("iteration-*")}
    complete = [done for done in range(1, ITERATIONS + 1) if read_checkpoint(saved / f"iteration-{done:06d}")]
    assert complete == [1, 3, 4]
    assert not list(saved.rglob(".*.tmp"))


@pytest.mark.parametrize("timing", Timing)
def test_an_iteration_whose_heirs_are_far_is_done_again_on_others(
    start: Start, workplace: Path, timing: Timing
) -> None:
    name, file = f"far-{timing.name}", workplace / "far.json"
    small = small_schedule()
    hop_s = small.costs.hop_s.copy()
    # Of stage 1 only node 3 is left, and that is far from node 0: its microbatch visits stage 2 instead.
    hop_s[0, 3] = hop_s[3, 0] = 1_000.0
    costs, paths = dataclasses.replace(small.costs, hop_s=hop_s), np.array(small.plan("ca-partial").paths)
    plan = make_plan(STAGES, paths, costs, 2, [0.05] * 3, {"solver": "by hand"})
    dataclasses.replace(small, costs=costs, settings={"ca-partial": plan}).save(file)
    fields = [f"schedule={file}", f"iterations={ITERATIONS}", f"name={name}", f"checkpoint_every={ITERATIONS}"]
    fields += ["peers.restart=0", *timing.fields]
    arguments = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields)
    process = start(*arguments, patched=("dying", Moment.MIDDLE_TASK.name, "2"))
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / name
    views = json_lines(folder / "views.jsonl")
    assert [(view["way"], view["iteration"]) for view in views] == [("start", 0), ("redo", 1)]
    assert views[1]["stages"] == [[0, 1], [3], [4, 5]]
    assert views[1]["paths"][5] == [1, 3]
    assert {path[1] for path in views[1]["paths"][:3]} == {4, 5}
    assert "it is begun again, 1 microbatch through other stages; stage 1 goes on with 1 of 2" in errors
    check_exact(workplace, folder, fields, ITERATIONS, lost=frozenset({2}), views=views)


@pytest.mark.parametrize("timing", Timing)
@pytest.mark.parametrize(
    ("moment", "stage", "other"),
    # In the sync, of which the other has compressed its own parts already; or after it, so that these count.
    [(Moment.SYNC, 1, 3), (Moment.TOLD_ONE, 0, 1)],
)
def test_a_replica_that_is_left_alone_compresses_nothing(
    start: Start, workplace: Path, moment: Moment, stage: int, other: int, timing: Timing
) -> None:
    node = WHO[moment]
    name, *fields = f"alone-{node}-{timing.name}", f"iterations={ITERATIONS}", f"checkpoint_every={ITERATIONS}"
    fields += [f"name={name}", "compression.sync=int8", *timing.fields]
    arguments = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, "peers.restart=0")
    process = start(*arguments, patched=("dying", moment.name, str(node)))
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / name
    views = json_lines(folder / "views.jsonl")
    assert [view["stages"][stage] for view in views] == [sorted([node, other]), [other]]
    wanted: dict[tuple[int, int], GradientCodec] = {}

    def note(iteration: int, reference: ReferenceTrainer) -> None:
        wanted.update(reference.codec_of)

    lost = frozenset({node})
    check_exact(
        workplace, folder, fields, ITERATIONS, lost=lost, views=views, restore=note, tolerance=1e-3, by_number=False
    )
    # What it had left out waits for another replica.
    saved = load_file(folder / "checkpoints" / f"iteration-{ITERATIONS:06d}" / f"feedback-{other}.safetensors")
    assert tensor_difference(saved["left_out"], wanted[stage, other].left_out) < 0.1


@pytest.mark.parametrize("timing", Timing)
def test_a_link_that_is_lost_for_good_costs_the_end_with_the_higher_number(
    start: Start, workplace: Path, timing: Timing
) -> None:
    # Whoever proposes is at neither end.
    fields = ["peers.silence_seconds=4", *timing.fields]
    folder, _, errors = disturb(start, workplace, f"link-{timing.name}", (f"{CUT}4", "1"), *fields)
    views = json_lines(folder / "views.jsonl")
    assert [view["members"] for view in views] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 5]]
    assert "node 4 (the others had gone on without it)" in errors
