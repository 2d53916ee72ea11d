"""What is left of a run whose origin dies and comes back: replay, ledger, trace and Gantt chart tell what happened."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from skippipe.__main__ import main
from skippipe.report.timeline import read_spans
from skippipe.report.views import read_views, view_of
from skippipe.schedule.timeline import LOSS
from tests.end_to_end.conftest import SECONDS, Start
from tests.end_to_end.dying import ITERATION
from tests.end_to_end.exactness import check_exact
from tests.small_schedule import small_schedule

ITERATIONS, ORIGIN = 12, 0
PLAN = small_schedule().plan("ca-partial")


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file that has one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_origin_dies_and_comes_back(
    start: Start, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = [f"iterations={ITERATIONS}", "name=ledger", f"checkpoint_every={ITERATIONS}", "emulation.time_scale=1.5"]
    more = ["peers.silence_seconds=60"]
    # It has read all of its batches when it dies.
    reads, patch = tmp_path / "reads.jsonl", ("LAST_TASK", str(ORIGIN))
    arguments = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, *more)
    process = start(*arguments, patched=("reading", str(reads), *patch))
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / "ledger"
    check_exact(workplace, folder, fields, ITERATIONS)
    check_ledger(folder, json_lines(reads))
    check_pictures(folder, tmp_path)
    check_replay(folder, capsys)


def check_ledger(folder: Path, reads: list[dict[str, Any]]) -> None:
    """Every batch of the schedule counts once in each iteration, though some were read twice."""
    views = read_views(folder)
    assert [ORIGIN in view.members for view in views] == [True, False, True]
    counted = [read for read in reads if view_of(views, read["iteration"]).paths[read["microbatch"]][0] == read["node"]]
    assert Counter((read["iteration"], read["part"], read["number"]) for read in counted) == Counter(
        (iteration, part, number)
        for iteration in range(ITERATIONS)
        for part, origin in enumerate(PLAN.stages[0])
        for number in range(PLAN.sends[origin])
    )
    again = [read for read in reads if read not in counted]
    assert {(read["iteration"], read["node"]) for read in again} == {(ITERATION, ORIGIN)}
    assert len(again) == PLAN.sends[ORIGIN]
    # Whoever reads also computes the loss.
    losses = [
        (iteration, span.microbatch, span.node)
        for iteration, spans in read_spans(folder).items()
        for span in spans
        if span.kind == LOSS
    ]
    assert sorted(losses) == sorted((read["iteration"], read["microbatch"], read["node"]) for read in counted)


def check_pictures(folder: Path, into: Path) -> None:
    """Trace and Gantt chart of all iterations show death, takeover and return."""
    trace, chart = into / "trace.json", into / "gantt.png"
    arguments = ["--iteration", f"0-{ITERATIONS - 1}", "--out", str(trace), "--plot", str(chart)]
    assert main(["trace", str(folder), *arguments]) == 0
    assert chart.read_bytes()[:4] == b"\x89PNG"
    events = json.loads(trace.read_text())["traceEvents"]
    marks = {kind: [event for event in events if event.get("cat") == kind] for kind in ("view", "lost", "joined")}
    assert [event["name"] for event in marks["view"]] == [f"view 1: lost: {ORIGIN}", f"view 2: joined: {ORIGIN}"]
    assert [event["tid"] for event in marks["lost"] + marks["joined"]] == [ORIGIN, ORIGIN]
    assert marks["lost"][0]["ts"] <= marks["view"][0]["ts"] < marks["view"][1]["ts"]
    heirs = {event["tid"] for event in events if event["name"].endswith(f" for node {ORIGIN}")}
    assert heirs == {1}


def check_replay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The views say what was trained; if one names another stage, that is found."""
    assert main(["replay", str(folder)]) == 0
    lines = json_lines(folder / "views.jsonl")
    place = next(place for place, (origin, other) in enumerate(lines[1]["paths"]) if origin != ORIGIN and other == 2)
    lines[1]["paths"][place][1] = 4
    (folder / "views.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    assert main(["replay", str(folder)]) == 1
    assert f"of iteration {ITERATION} (view 1)" in capsys.readouterr().out
