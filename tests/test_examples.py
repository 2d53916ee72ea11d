"""The examples run as their first lines say, from any folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from skippipe.schedule import Schedule

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SECONDS = 300


def run_example(name: str, folder: Path, *arguments: str) -> str:
    """What an example prints when it is run in a folder of its own."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_schedule_for_ones_own_network(tmp_path: Path) -> None:
    printed = run_example("own_network.py", tmp_path, "mine")
    schedule = Schedule.load(tmp_path / "mine" / "schedule.json")
    assert schedule.locations[:3] == ("Delft", "Basel", "Oulu")
    for setting, plan in schedule.settings.items():
        assert re.search(rf"{setting} +iteration +{plan.expected_iteration_s:.2f} s", printed)
    assert (tmp_path / "mine" / "gantt.png").read_bytes().startswith(b"\x89PNG")


def test_what_if_a_link_gets_slower(tmp_path: Path) -> None:
    printed = run_example("what_if.py", tmp_path, "Iowa", "Japan", "3")
    steps = dict(re.findall(r"^(\S+) +[\d.]+ before, +([\d.]+) after", printed, re.M))
    shipped = Schedule.load("original-20-nodes-and-joint").settings
    assert set(steps) == set(shipped)
    assert float(steps["non-ca-partial"]) > shipped["non-ca-partial"].expected_step_s + 10
    unchanged = run_example("what_if.py", tmp_path, "Iowa", "Japan", "1")
    assert all(before == after for before, after in re.findall(r"([\d.]+) before, +([\d.]+) after", unchanged))


def test_training_from_python(tmp_path: Path) -> None:
    printed = run_example("train_from_python.py", tmp_path, "trained")
    first, last, iterations = re.search(r"loss ([\d.]+) to ([\d.]+) in (\d+) iterations", printed).groups()
    assert float(last) < float(first)
    assert iterations == "8"
    (folder,) = (tmp_path / "trained").iterdir()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 8
