"""Those who go on without a node find a better plan by themselves, and change to it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from skippipe.schedule import Schedule
from skippipe.search.replanning import replan
from tests.end_to_end.conftest import SECONDS, Start, wait_for
from tests.end_to_end.exactness import check_exact
from tests.end_to_end.test_rejoin import WIDE_STAGES, Run, save_wide_schedule

MORE = 3
"""Iterations that must be done with the better plan."""


def test_a_better_plan_is_found_and_changed_to(start: Start, workplace: Path) -> None:
    schedule = workplace / "wide.json"
    save_wide_schedule(schedule)
    # Compiles the search for its process, if it is not yet: nobody reads what the run prints meanwhile.
    replan(Schedule.load(schedule), 0.1, 2)
    fields = [f"schedule={schedule}", "peers.restart=0", "peers.replan_seconds=1"]
    run = Run(start, workplace, "replan", 100_000, *fields, nodes=7)
    # The stage that three of the eight microbatches of ca-partial visit more than another.
    run.kill(5)
    wait_for(lambda: any(view["way"] == "boundary" for view in run.views))
    began = next(view for view in run.views if view["way"] == "boundary")["iteration"]
    wait_for(lambda: (run.folder / "metrics.jsonl").read_text().count("\n") > began + MORE)
    run.process.send_signal(signal.SIGTERM)
    _, errors = run.process.communicate(timeout=SECONDS)
    done = (run.folder / "metrics.jsonl").read_text().count("\n")
    start_view, takeover, better, *rest = run.views
    assert not rest
    assert (start_view["stages"], takeover["way"], better["way"]) == (WIDE_STAGES, "takeover", "boundary")
    assert better["expected_step_s"] < takeover["expected_step_s"]
    assert better["reason"].startswith("moved: ")
    assert re.search(r"a better plan, view 2 from iteration \d+: ", errors)
    assert json.loads((run.folder / "summary.json").read_text())["views"] == 3
    check_exact(workplace, run.folder, run.fields, done, lost=frozenset({5}), stages=better["stages"], views=run.views)
