"""What the benchmarks of survival say of their figures: too slow, too large, or not exact."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.agreement import earlier, write
from benchmarks.deaths import Death, Deaths
from benchmarks.jobs import MAIN_NODES, job_of
from benchmarks.kept import Kept
from benchmarks.noticing import report as silences_report
from benchmarks.silences import How, smaller_halves
from benchmarks.simulated_deaths import simulate, told
from benchmarks.survival import exactness, report, times
from benchmarks.survival_before import Measured, verdict
from skippipe.report.metrics import IterationMetrics, append_metrics
from skippipe.report.views import append_views
from skippipe.survival.succession import plan_of_the_living
from skippipe.survival.view import View
from tests.small_schedule import small_schedule


@pytest.mark.parametrize(
    ("step_s", "megabytes", "is_met"), [(10.1, 70.0, True), (10.2, 50.0, False), (10.0, 70.1, False)]
)
def test_a_build_that_is_slower_or_larger_than_asked_is_told(step_s: float, megabytes: float, is_met: bool) -> None:
    before = [Measured(9.0, 10.0), Measured(10.0, 50.0), Measured(11.0, 90.0)]
    said = verdict(before, [Measured(1.0, 1.0), Measured(step_s, megabytes), Measured(99.0, 999.0)])
    assert f"{step_s / 10:.4f} of what it took" in said
    assert f"has {megabytes - 50:+.1f} MB" in said
    assert ("**not met**" not in said) == is_met


def outcome(**otherwise: Any) -> dict[str, Any]:
    """Of a run whose lost node's tasks were taken over."""
    times = {"noticed_s": 0.02, "agreed_s": 0.2, "step": 1.1, "following": 1.2}
    differences = {"loss_difference": 1e-8, "tensor_difference": 1e-8, "are_equal": True, "is_replayed": False}
    return {"nodes": [3], "moment": 0.5, "iteration": 2, "way": "takeover", **times, **differences, **otherwise}


@pytest.mark.parametrize("wrong", [{"loss_difference": 2e-5}, {"tensor_difference": 2e-5}, {"are_equal": False}])
def test_a_death_after_which_anything_differs_is_not_exact(wrong: dict[str, Any]) -> None:
    right, other = Death(**outcome()), Death(**outcome(**wrong))
    assert right.is_exact
    assert not other.is_exact
    assert "**NO**" in other.row()
    assert "**NO**" not in right.row()
    lost = Death(**outcome(nodes=[2, 3], way="redo", is_replayed=True))
    assert exactness([right, other], failed=2).startswith("Of 4 deaths 1 left the training exact")
    assert "3 were taken over, 1 lost a whole stage, or what was too far, and" in exactness(
        [right, right, other, lost], failed=0
    )
    assert lost.row().startswith("| 2, 3 | 0.50 | 2 | redo |")


def test_times_are_compared_with_what_was_asked() -> None:
    slow = [Death(**outcome(noticed_s=0.3)), Death(**outcome(step=1.2))]
    assert times([slow[0], Death(**outcome())]).count("**not met**") == 0
    assert times([slow[0]]).count("**not met**") == times([slow[1]]).count("**not met**") == 1


@pytest.mark.parametrize(
    ("done", "iteration", "is_late"), [(2, 1, False), (2, 2, True), (2, None, True), (1, None, False)]
)
def test_a_death_that_comes_after_the_last_iteration_is_none(
    tmp_path: Path, done: int, iteration: int | None, is_late: bool
) -> None:
    schedule = small_schedule()
    plan = schedule.plan("ca-partial")
    views = [View(0, 0, "start", "the run begins", plan, -1)]
    if iteration is not None:
        left = plan_of_the_living(plan, {3}, schedule.costs, schedule.bandwidth_gib_s, schedule.pipeline.sync_bytes)
        views.append(View(1, iteration, "takeover", "lost: 3", left, iteration - 1))
    append_views(tmp_path, [view.document() for view in views])
    for number in range(done):
        append_metrics(tmp_path, IterationMetrics(number, 5.0, 1.0, 1.0, 1.0, 100, 10.0, 1000))
    deaths = object.__new__(Deaths)
    deaths.iterations = 2
    assert deaths.was_late(tmp_path, (3,)) == is_late


def test_deaths_stand_beside_their_simulation(tmp_path: Path) -> None:
    early, late = (Death(**outcome(nodes=[8], moment=0.3, agreed_s=agreed_s)) for agreed_s in (0.1, 0.6))
    in_sync, redone = Death(**outcome(nodes=[8], moment=0.9, step=1.4)), Death(**outcome(way="redo"))
    found = simulate(job_of(MAIN_NODES, tmp_path), [early, late, in_sync, redone])
    assert [beside.death for beside in found] == [early, late, in_sync]
    assert [beside.agreed_s for beside in found] == pytest.approx([1.0, 6.0, 2.0])
    soon, later, nothing = (beside.simulated for beside in found)
    assert soon is not None
    assert later is not None
    assert 1.0 < soon < later
    assert nothing is None
    *_, steps, syncs = told(found)
    mean = (soon + later) / 2
    assert (
        f"2 deaths before the sync took steps of 1.10 (mean), simulated, known when all had agreed, {mean:.2f}" in steps
    )
    assert f"further than {max(abs(1.1 - soon), abs(1.1 - later)):.2f} apart" in steps
    assert "1 during the sync, which has to be begun again, took 1.40." in syncs


def test_outcomes_are_kept_line_by_line_and_measured_once(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.jsonl", "deaths")
    kept.once("nobody", lambda: {"step": 1.0, "loss_difference": 0.0, "tensor_difference": 0.0, "are_equal": True})

    def fail() -> dict[str, Any]:
        raise RuntimeError("first\nthe run ended")

    kept.once("death 10", outcome)
    kept.once("death 2", fail)
    # The machine went away while a line was written.
    with kept.path.open("a") as file:
        file.write('{"of": "dea')
    again = Kept(kept.path, "deaths")
    assert again.outcomes == kept.outcomes
    assert again.once("death 10", fail) == outcome()
    assert again.once("death 2", outcome) == {"failed": "the run ended"}
    again.once("death 11", outcome)
    assert list(Kept(kept.path, "deaths").outcomes) == ["nobody", "death 10", "death 2", "death 11"]
    assert not Kept(kept.path, "other deaths").outcomes
    rows = [
        line
        for line in report([], again, are_times_meant=False, job=job_of(MAIN_NODES, tmp_path))
        if line.startswith("| ")
    ][1:]
    assert [row.split()[1] for row in rows] == ["nobody", "death", "3", "3"]
    assert rows[1].startswith("| death 2 failed: the run ended |")
    assert len({row.count("|") for row in rows}) == 1


def silence(**otherwise: Any) -> dict[str, Any]:
    """Of a run in which the cable to nodes 4 and 5 was cut."""
    nodes = {"how": "CABLE", "first": 4, "last": 5, "moment": 0.5, "iteration": 2, "way": "takeover", "beside": []}
    return {**nodes, "noticed_s": 5.0, "agreed_s": 7.0, "step": 2.0, "ended_s": 9.0, **otherwise}


def test_nodes_that_fall_silent_are_told_by_how_they_did_and_failed_runs_too(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.jsonl", "silences")
    stopped = silence(how="STOP", last=4, ended_s=None)
    kept.add("STOP 0", stopped)
    kept.add("STOP 1", {**stopped, "noticed_s": 6.5, "beside": [1]})
    kept.add("STOP 2", {**stopped, "noticed_s": 7.5})
    kept.add("CABLE 0", silence())
    kept.add("CABLE 1", {"failed": "it ended"})
    text = silences_report([], kept, [How.STOP, How.CABLE], 3)
    rows = [line for line in text if line.startswith("| ")][1:]
    assert [row.split(" | ")[1] for row in rows[:4]] == ["4", "4", "4", "4 to 5"]
    assert rows[4].startswith("| CABLE 1 failed: it ended |")
    assert len({line.count("|") for line in text if line.startswith("|")}) == 1
    stop, cable = text[-2:]
    assert "3 runs, 0 failed. Noticed after 6.50 s (median; at most 7.50 s; asked: 6 s, **not met**)" in stop
    assert stop.endswith("Others were left out too in 1 of them.")
    assert "2 runs, 1 failed. Noticed after 5.00 s (median; at most 5.00 s; asked: 6 s, met)" in cable


def test_halves_are_cut_off_without_which_a_majority_holds_every_stage() -> None:
    assert smaller_halves(small_schedule().plan("ca-partial")) == [range(1), range(5, 6)]


def test_seeds_of_the_same_protocol_are_added_up_and_others_are_not(tmp_path: Path) -> None:
    path, counts = tmp_path / "agreement.md", Counter(seeds=5000, killed=12_345)
    runs = ["- seeds 0 to 4,999, protocol one, 2026-11-26, 9 s: 0 violations"]
    write(path, runs, counts)
    found, total = earlier(path, "one")
    assert (found, +total) == (runs, counts)
    assert earlier(path, "two") == earlier(tmp_path / "none.md", "one") == ([], Counter())
