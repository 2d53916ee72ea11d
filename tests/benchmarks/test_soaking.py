"""The faults of a soak: how they are planned, whom they may strike, and what is taken for growth or a hang."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.found import Found, Struck
from benchmarks.soak import checks, ending, taken
from benchmarks.soaking import Fault, Standing, gap_at, planned, planned_for, quarters, victims

EVERYBODY = frozenset(range(20))
SPARED = frozenset({4, 16, 19})


def standing(members: frozenset[int] = EVERYBODY, living: frozenset[int] = EVERYBODY) -> Standing:
    """Of twenty nodes."""
    return Standing(20, members, living, SPARED)


def test_all_kinds_come_equally_often_after_pauses_of_the_mean_that_was_asked() -> None:
    plan = planned(500, 8.0, seed=1)
    counts = Counter(each.fault for each in plan)
    assert len(plan) == 500
    assert set(counts) == set(Fault)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert sum(each.after_s for each in plan) / 500 == pytest.approx(8.0, rel=0.15)
    assert min(each.after_s for each in plan) >= 0.8
    assert plan == planned(500, 8.0, seed=1) != planned(500, 8.0, seed=2)


@pytest.mark.parametrize("fault", Fault)
def test_only_what_a_process_survives_strikes_the_spared(fault: Fault) -> None:
    chance = random.Random(0)
    struck = {node for _ in range(400) for node in victims(fault, chance, standing())}
    assert (struck >= SPARED) == fault.is_survived
    if fault is Fault.PROPOSER:
        assert struck == {0}
    else:
        assert struck >= EVERYBODY - SPARED


def test_the_proposer_is_the_first_member_and_waits_for_another_if_that_one_is_spared_or_gone() -> None:
    chance = random.Random(0)
    assert victims(Fault.PROPOSER, chance, standing(members=EVERYBODY - {0, 1})) == (2,)
    assert victims(Fault.PROPOSER, chance, standing(members=EVERYBODY - {0, 1, 2, 3})) == ()
    assert victims(Fault.PROPOSER, chance, standing(living=EVERYBODY - {0})) == ()


def test_faults_wait_for_a_majority() -> None:
    chance = random.Random(0)
    for fault in (Fault.KILLED, Fault.STOPPED, Fault.STARTING):
        assert victims(fault, chance, standing(living=frozenset(range(8, 20))))
        assert not victims(fault, chance, standing(living=frozenset(range(9, 20))))
    for _ in range(100):
        struck = victims(Fault.SEVERAL, chance, standing(living=frozenset(range(7, 20))))
        assert len(struck) in (0, 2)


@pytest.mark.parametrize("seconds", [60.0, 3600.0])
def test_so_many_faults_are_planned_as_fill_the_time(seconds: float) -> None:
    faults = planned_for(seconds, 8.0, 0)
    lasts = sum(fault.after_s for fault in faults)
    # One more would not have fitted; no pause is longer than this with any likelihood.
    assert seconds - 80 < lasts <= seconds
    assert set(fault.fault for fault in planned_for(3600.0, 8.0, 0)) == set(Fault)


def test_nobody_is_struck_who_is_no_member_or_does_not_live() -> None:
    chance, away = random.Random(0), frozenset({5, 6, 7})
    for now in (standing(members=EVERYBODY - away), standing(living=EVERYBODY - away)):
        assert not away & {node for _ in range(300) for node in victims(Fault.SEVERAL, chance, now)}


def test_growth_is_seen_between_the_second_and_the_last_quarter() -> None:
    assert quarters([0, 0, 10, 10, 11, 12, 13, 14]) == (10, 13.5)
    found = Found()
    found.samples["run-1, node 4"] += [(100.0, 30)] * 16
    found.samples["run-1, node 16"] += [(100.0 + 2 * step, 30) for step in range(16)]
    found.samples["run-1, node 19"] += [(100.0, 30 + step) for step in range(16)]
    assert ["**NO**" in line for line in taken(found)[2:]] == [False, True, True]


def test_a_hang_and_a_failure_and_a_missing_fault_are_told() -> None:
    def unmet(found: Found, runs: int = 1) -> list[str]:
        return [line.split("|")[1].strip() for line in checks(found, 7, runs)[2:] if "**NO**" in line]

    struck = [Struck(fault, (1,), 0.0) for fault in Fault]
    assert unmet(Found(struck=struck, gaps=[2.0, 30.0])) == []
    assert unmet(Found(struck=struck, gaps=[2.0, 31.0])) == ["between the ends of two iterations, real"]
    assert unmet(Found(struck=struck[:-1])) == ["faults"]
    assert unmet(Found(struck=struck, failed=["ports"]), runs=2) == ["runs that it took", "failures, listed below"]
    assert unmet(Found(struck=struck, calls=2), runs=2) == []
    without = [Struck(Fault.KILLED, (1,), 0.0)] * 7
    assert unmet(Found(struck=without)) == ["proposer killed"]


def test_a_fault_falls_between_two_ends_of_iterations() -> None:
    assert gap_at([1.0, 2.0, 5.0], 2.5) == 3.0
    assert gap_at([1.0, 2.0, 5.0], 0.5) == gap_at([1.0, 2.0, 5.0], 5.5) == 0.0


def test_what_is_found_is_kept_for_the_same_soak_alone(tmp_path: Path) -> None:
    found = Found(struck=[Struck(Fault.PROPOSER, (0, 3), 7.0, gap_s=2.5)], gaps=[1.0], seconds=9.0, calls=1)
    found.samples["run-1, node 4"] += [(100.0, 30)]
    found.folders.append("run-1")
    found.save(tmp_path / "found.json", "this")
    again = Found.load(tmp_path / "found.json", "this")
    # It was not lately.
    assert again.struck.pop() == Struck(Fault.PROPOSER, (0, 3), -math.inf, 2.5)
    found.struck.clear()
    assert again == found
    assert Found.load(tmp_path / "found.json", "another") == Found.load(tmp_path / "none.json", "this") == Found()


def test_a_soak_that_was_cut_short_claims_nothing_of_its_end() -> None:
    assert ending(Found()) == "It is not over."
    assert ending(Found(is_over=True)).startswith("Nothing failed: all nodes were back")
    assert ending(Found(failed=["ports"], is_over=True)) == "What failed:"
