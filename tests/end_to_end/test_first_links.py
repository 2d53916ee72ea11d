"""All links of a run are there before its first iteration: those along the paths, of the syncs and of the figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skippipe.runtime.executor import expected_senders
from skippipe.schedule import Schedule
from tests.end_to_end.conftest import SECONDS, Start
from tests.end_to_end.timing import Timing
from tests.small_schedule import STAGES


@pytest.mark.parametrize("timing", Timing)
def test_nodes_connect_to_all_that_they_send_to_before_the_first_iteration(
    start: Start, workplace: Path, timing: Timing
) -> None:
    name = f"first-links-{timing.name}"
    fields = ["iterations=2", "evaluate_every=1", f"name={name}", *timing.fields]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields, patched=("linked",))
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    plan = Schedule.load(workplace / "schedule.json").settings["ca-partial"]
    for node in range(6):
        log = (workplace / "runs" / name / f"node-{node}.log").read_text()
        found = re.search(r"sends to \[([\d, ]*)\], connected to \[([\d, ]*)\]", log)
        assert found is not None, log
        receivers, connected = ({int(other) for other in re.findall(r"\d+", text)} for text in found.groups())
        along_paths = {other for other in range(6) if node in expected_senders(plan, other).values()}
        replicas = next(set(stage) for stage in STAGES if node in stage) - {node}
        assert along_paths | replicas <= receivers <= connected
        assert "opens a link" not in log
        # Each would do it for itself.
        assert "imported []" in log, re.search("imported .*", log)
