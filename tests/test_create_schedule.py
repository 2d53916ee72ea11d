"""create_schedule.py as a user runs it: a file that loads, pictures, and one clear line for every mistake."""

from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from create_schedule import HYPERPARAMETERS, main
from skippipe.fields import build, load_config
from skippipe.schedule import Schedule
from skippipe.search.config import SearchConfig
from skippipe.search.problem import Instance

ROOT = Path(__file__).resolve().parent.parent
LIGHT = [
    "--quiet",
    "--settings",
    "baseline,random,non-ca-partial,ca-partial",
    "--population",
    "10",
    "--trials",
    "20",
    "--constraint-sets",
    "5",
    "--pipeline-steps",
    "200",
    "--path-steps",
    "200",
]


def test_writes_a_schedule_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "schedule.json"
    config = tmp_path / "config.yaml"
    config.write_text("layers_per_stage: 1\nseed: 5\nnetwork: gcp-12-as-published\n", encoding="utf-8")
    assert main([*LIGHT, "--config", str(config), "--out", str(out), "--seed", "6"]) == 0
    schedule = Schedule.load(out)
    assert list(schedule.settings) == ["baseline", "random", "non-ca-partial", "ca-partial"]
    assert schedule.pipeline.layers_per_stage == 1
    assert schedule.network_name == "gcp-12-as-published"
    assert all(plan.search["seed"] == 6 for plan in schedule.settings.values())
    printed = capsys.readouterr().out
    for setting, plan in schedule.settings.items():
        assert re.search(rf"{setting} +{plan.expected_iteration_s:.2f} s +{plan.expected_step_s:.2f} s", printed)
    assert "GCMA" not in printed


def test_pictures_beside_the_file(tmp_path: Path) -> None:
    assert main([*LIGHT, "--settings", "ca-partial", "--out", str(tmp_path / "s.json"), "--plot"]) == 0
    for picture in ("map", "gantt"):
        assert (tmp_path / f"s-ca-partial-{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_subsets_and_own_networks(tmp_path: Path) -> None:
    out = tmp_path / "s.json"
    assert main([*LIGHT, "--subset", "single-cluster", "--out", str(out)]) == 0
    assert set(Schedule.load(out).locations) == {"Germany"}
    network = tmp_path / "own.yaml"
    network.write_text(
        "locations: [here, there]\ndefault: {latency_ms: 5, bandwidth_gib_s: 0.1}\n"
        "same_location: {latency_ms: 1, bandwidth_gib_s: 1}\n",
        encoding="utf-8",
    )
    small = ["--nodes", "9", "--stages", "4", "--stage-sizes", "3,2,2,2", "--path-length", "3"]
    assert main([*LIGHT, *small, "--network", str(network), "--out", str(out)]) == 0
    assert Schedule.load(out).locations[:3] == ("here", "there", "here")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "paper").glob("search-*.yaml")), ids=lambda path: path.stem)
def test_the_papers_setups_load(path: Path) -> None:
    config = load_config(SearchConfig, path)
    assert Instance.from_config(config).nodes == config.nodes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--stage-sizes", "5,3,3,3,3,4"], r"add up to nodes = 20; nearest: nodes 20 .*\[5, 3, 3, 3, 3, 3\]"),
        (["--stage-sizes", "5,3,3,3"], "4 entries for 6 stages; nearest"),
        (["--stage-sizes", "4,3,3,3,3,4"], "same size"),
        (["--stage-sizes", "10,2,2,2,2,2"], "30 must equal .* 10; nearest"),
        (["--nodes", "21", "--stage-sizes", "6,3,3,3,3,3"], "nearest: nodes 20 .* or nodes 40"),
        (["--stage-sizes", "20,0,0,0,0,0"], "positive"),
        (["--path-length", "7"], "path_length 7 must lie between 2 and stages = 6; nearest: path_length 6"),
        (["--path-length", "1"], "nearest: path_length 2"),
        (["--path-length", "2"], "never reaches stage 5.*nearest: path_length 3"),
        (["--microbatches-per-node", "7"], "multiple of memory = 3.*nearest: 6 or 9"),
        (["--memory", "0"], "memory must be positive"),
        (["--nodes", "1000000"], "at most 10000"),
        (["--nodes", "many"], "--nodes must be a whole number"),
        (["--time-budget-s", "nan"], "time-budget-s must be"),
        (["--seed", "-1"], "seed can't be negative"),
        (["--sync-slack", "0.5"], "at least 1"),
        (["--network", "gcp-13"], "gcp-13.*gcp-12"),
        (["--network", "nowhere.yaml"], "nowhere.yaml"),
        (["--subset", "6-clusters"], "5-clusters"),
        (["--locations", ",".join(["Belgum"] * 20)], "did you mean Belgium"),
        (["--locations", "Belgium"], "locations has 1 entries"),
        (["--settings", "best"], "best"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_can_not_work_is_refused_at_once(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = time.monotonic()
    assert main([*LIGHT, "--out", str(tmp_path / "s.json"), *arguments]) == 2
    assert time.monotonic() - begin < 10.0
    message = capsys.readouterr().err
    assert re.search(expected, message), message
    assert len(message.strip().splitlines()) == 1
    assert not (tmp_path / "s.json").exists()


def test_missing_link_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = tmp_path / "own.yaml"
    network.write_text("locations: [here, there]\nsame_location: {latency_ms: 1, bandwidth_gib_s: 1}\n", "utf-8")
    assert main([*LIGHT, "--network", str(network)]) == 2
    assert "no link between here and there" in capsys.readouterr().err


def test_unknown_field_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("node: 20\n", encoding="utf-8")
    assert main(["--config", str(config)]) == 2
    assert f"{config}: no field node; did you mean nodes?" in capsys.readouterr().err


def test_a_place_that_can_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LIGHT, "--out", str(tmp_path / "no" / "s.json")]) == 2
    assert "can't be written" in capsys.readouterr().err


def test_every_field_stands_in_the_block() -> None:
    assert build(SearchConfig, HYPERPARAMETERS, "block") == SearchConfig()
    assert list(HYPERPARAMETERS) == [entry.name for entry in dataclasses.fields(SearchConfig)]


def test_the_same_seed_and_steps_give_the_same_file_however_often_the_process_is_stalled(tmp_path: Path) -> None:
    steps = [*LIGHT, "--settings", "[]", "--joint-steps", "3000", "--path-steps", "500", "--time-budget-s", "null"]
    written = []
    for name in ("undisturbed.json", "stalled.json"):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "create_schedule.py"), "--out", str(tmp_path / name), *steps],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while name == "stalled.json" and process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    plans = Schedule.load(tmp_path / "stalled.json").settings
    assert len(plans) == 5
    assert {plan.search["ended_by"] for plan in plans.values()} == {"steps"}


def test_a_search_bounded_by_time_says_so_in_the_file(tmp_path: Path) -> None:
    assert main([*LIGHT, "--settings", "baseline", "--out", str(tmp_path / "s.json"), "--time-budget-s", "5"]) == 0
    assert "another run may differ" in Schedule.load(tmp_path / "s.json").plan("baseline").search["ended_by"]


def test_interrupt_writes_the_best_found(tmp_path: Path) -> None:
    """Ctrl-C while a search runs that would take an hour: the file is there, complete and valid, soon after."""
    out = tmp_path / "s.json"
    endless = ["--trials", "100000000", "--time-budget-s", "3600", "--settings", "random,ca-partial"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "create_schedule.py"), "--out", str(out), *endless],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        shown = ""
        while "score" not in shown:
            shown += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"wrote {out}" in printed
    plans = Schedule.load(out).settings
    assert list(plans) == ["random", "ca-partial"]
    assert 0 < plans["random"].search["trials"] < 100_000_000
    assert (
        f"GCMA, which assigns nodes to stages, made {plans['random'].search['trials']} of 100000000 trials" in printed
    )


def test_aliases_that_unfold_to_billions_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    config = tmp_path / "unfolds.yaml"
    config.write_text("nodes:\n" + "".join(f"  {row}\n" for row in rows))
    begin = time.process_time()
    assert main(["--config", str(config)]) == 2
    assert time.process_time() - begin < 5.0
    assert "nodes must be" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["9" * 5_000, "0x" + "f" * 5_000])
def test_whole_numbers_of_thousands_of_digits_are_refused(
    number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "long.yaml"
    config.write_text(f"nodes: [{number}]\n")
    assert main(["--config", str(config)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
