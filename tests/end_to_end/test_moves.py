"""Nodes change stage in the middle of a run, and some die while they do: it trains what one process would train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import SECONDS, Start
from tests.end_to_end.exactness import check_exact
from tests.end_to_end.moving import MOVERS, RELAYS, STAGES, Moment
from tests.end_to_end.test_rejoin import save_wide_schedule

ITERATIONS = 6
WHO = {
    Moment.NEVER: (0,),
    # Node 5 is a donor and moves itself; node 2 stays where it is.
    Moment.HANDING: (2, 5),
    Moment.HANDED: (3, 5),
    Moment.MIDDLE_TASK: (0, 3),
    Moment.FIGURES: (6,),
    Moment.COMMITTED: (3, 4),
}


@pytest.mark.parametrize(("moment", "node"), [(moment, node) for moment, nodes in WHO.items() for node in nodes])
def test_nodes_change_stage(start: Start, workplace: Path, moment: Moment, node: int) -> None:
    schedule, name = workplace / "wide.json", f"moves-{moment.name}-{node}"
    save_wide_schedule(schedule)
    fields = [f"schedule={schedule}", f"iterations={ITERATIONS}", f"name={name}", f"checkpoint_every={ITERATIONS}"]
    fields += ["peers.restart=0", "peers.silence_seconds=60", "peers.replan_seconds=0"]
    patched = ("moving", moment.name, str(node))
    process = start("0", "7", "ca-partial", "2", f"{workplace}/small.yaml", *fields, patched=patched)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / name
    views = [json.loads(line) for line in (folder / "views.jsonl").read_text().splitlines()]
    moved = next(view for view in views if view["reason"] == f"moved: {', '.join(map(str, MOVERS))}")
    assert (moved["way"], moved["stages"]) == ("boundary", STAGES)
    assert [path[1] for path in moved["paths"]] == RELAYS
    assert "nodes 3 and 5 change stage; next expected" in errors
    lost = frozenset() if moment is Moment.NEVER else frozenset({node})
    check_exact(workplace, folder, fields, ITERATIONS, lost=lost, stages=views[-1]["stages"], views=views)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["iterations_redone"] == moment.is_redone
    if lost:
        assert views[-1]["way"] == ("redo" if moment.is_redone else "takeover")
        is_back = views[-1]["stages"] == [[other for other in stage if other != node] for stage in views[0]["stages"]]
        assert is_back == moment.is_redone
