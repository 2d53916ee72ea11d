"""Churn: who dies when, what a training has come to, and that a small one goes through each way of going on."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kept import Kept
from experiments.trained import Life, Trained, deaths, emulated_seconds, longest_gap

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900
ITERATIONS = 6


def trained(losses: list[float | None], ended: list[float | None]) -> Trained:
    """A training with these losses and ends of iterations; on the schedule each second is ten."""
    return Trained(
        way="OURS",
        rate=0.1,
        wanted=len(losses),
        real_s=20.0,
        emulated_s=200.0,
        losses=losses,
        ended_real_s=ended,
        ended_emulated_s=[None if second is None else 10 * second for second in ended],
        deaths=0,
        starts=1,
        stuck=0,
        longest_gap_s=1.0,
        counts={},
        members=None,
        replayed=0,
        replay_difference=0.0,
        said=[],
    )


def test_deaths_are_seeded_and_as_frequent_as_was_asked() -> None:
    drawn = [deaths(0.1, 20, attempt, 3) for attempt in range(1000)]
    assert drawn == [deaths(0.1, 20, attempt, 3) for attempt in range(1000)]
    assert drawn != [deaths(0.1, 20, attempt, 4) for attempt in range(1000)]
    assert sum(map(len, drawn)) == pytest.approx(2000, rel=0.1)
    assert all(0 <= moment < 1 and node in range(20) for few in drawn for moment, node in few)
    assert all(few == sorted(few) for few in drawn)
    assert {node for few in drawn for _, node in few} == set(range(20))


def test_whoever_dies_at_a_rate_dies_at_a_higher_one_at_the_same_moment() -> None:
    for attempt in range(200):
        few, many = (set(deaths(rate, 20, attempt, 0)) for rate in (0.05, 0.2))
        assert few <= many
    assert not any(deaths(0.0, 20, attempt, 0) for attempt in range(200))


def test_the_schedules_seconds_count_training_by_the_time_scale_and_later_starts_as_they_are() -> None:
    lives = [Life(began=0.0, ready=7.0, over=17.0), Life(began=18.0, over=20.0), Life(21.0, ready=25.0, over=100.0)]
    assert emulated_seconds(lives, 0, 9.0, 0.1) == pytest.approx(20)
    # The second start fails: all of its time, and what lies between, is start-up.
    assert emulated_seconds(lives, 2, 26.0, 0.1) == pytest.approx(100 + (25 - 17) + 10)


def test_the_longest_gap_lies_between_ends_of_iterations_and_not_in_starts() -> None:
    first = Life(began=0.0, ready=50.0, over=60.0, ended={0: 52.0, 1: 55.0})
    assert longest_gap([first]) == 5.0
    assert longest_gap([first, Life(began=60.0, ready=90.0, over=97.0, ended={1: 91.0})]) == 6.0


def test_a_loss_is_the_mean_of_the_last_ones_and_is_timed_when_it_is_first_reached() -> None:
    falling = trained([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0], [float(second) for second in range(1, 8)])
    assert falling.last_loss == pytest.approx(6.0)
    assert falling.loss_after(4) == pytest.approx(8.0)
    assert falling.seconds_to(7.0) == pytest.approx(60.0)
    assert falling.seconds_to(7.0, is_real=True) == pytest.approx(6.0)
    assert falling.seconds_to(1.0) is None


def test_a_training_that_was_ended_has_no_last_loss() -> None:
    ended = trained([3.0, 3.0, 3.0, 3.0, 3.0, 3.0, None], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, None])
    assert (ended.done, ended.is_over, ended.last_loss) == (6, False, None)
    assert ended.seconds_to(3.0, is_real=True) == pytest.approx(5.0)


def test_a_training_that_is_kept_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    churn = importlib.import_module("churn")
    kept = Kept(tmp_path / "kept.jsonl", "six nodes")
    before = trained([3.0, None], [1.0, None])
    kept.add("ours, 10%, at most 3 times as long", dataclasses.asdict(before))
    limits = argparse.Namespace(limit=3.0, limit_others=1.25)
    # There is nothing to train: whoever tried would fail.
    again = Kept(tmp_path / "kept.jsonl", "six nodes")
    assert churn.train(None, churn.Way.OURS, 0.1, limits, again, tmp_path, 60.0) == churn.Trained(
        **dataclasses.asdict(before)
    )
    with pytest.raises(AttributeError):
        churn.train(None, churn.Way.REDO, 0.1, limits, again, tmp_path, 60.0)


def test_six_nodes_die_and_go_on_in_each_way(tmp_path: Path) -> None:
    fields = ["--nodes", "6", "--iterations", str(ITERATIONS), "--rates", "10", "--spread", "1", "--seed", "9"]
    limits = ["--limit", "50", "--limit-others", "50"]
    folders = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "churn.py"), "--quick", *limits, *fields, *folders],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "churn-6-nodes.md").read_text()
    assert "- Command: `python experiments/churn.py --quick" in text
    assert "(churn-6-nodes.png)" in text
    kept = [json.loads(line)["outcome"] for line in (tmp_path / "churn-6-nodes.jsonl").read_text().splitlines()]
    records = [record for record in kept if "way" in record]
    undisturbed = next(record for record in records if not record["rate"])
    ours, redo, restart = (
        next(record for record in records if record["rate"] and record["way"] == way)
        for way in ("OURS", "REDO", "RESTART")
    )
    assert undisturbed["members"] == restart["members"] == 6
    for record in (ours, redo):
        assert 5 <= record["members"] < 6
    for record in (ours, redo, restart):
        assert record["deaths"] > 0
        assert record["losses"] == pytest.approx(undisturbed["losses"], rel=1e-5)
    for record in (undisturbed, ours):
        assert record["replayed"] == ITERATIONS
        assert record["replay_difference"] < 1e-5
    assert ours["counts"]["microbatches_taken_over"] > 0 == ours["counts"]["iterations_redone"]
    assert redo["counts"]["iterations_redone"] > 0 == redo["counts"]["microbatches_taken_over"]
    assert (ours["starts"], redo["starts"]) == (1, 1)
    assert restart["starts"] == restart["deaths"] + 1
