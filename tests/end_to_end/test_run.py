"""The main job over real processes and DecCom links: it trains, it reports, it ends everything that it started."""

from __future__ import annotations

import json
import signal
import time
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from skippipe.model.checkpoint import find_latest
from skippipe.report.run_folder import process_ids
from skippipe.schedule.costs import Queueing
from tests.end_to_end.conftest import SECONDS, Start, alive, free_ports, wait_for
from tests.end_to_end.timing import Timing
from tests.small_schedule import small_schedule

NONE = "checkpoint_every=null"
SUMMARY_KEYS = (
    "setting nodes iterations loss_first loss_last measured_iteration_s measured_step_s expected_iteration_s"
    " expected_step_s measured_over_expected tokens_per_second bytes_sent dropped_iterations"
    " views nodes_lost nodes_joined microbatches_taken_over iterations_redone seconds_lost"
)
METRICS_KEYS = "iteration loss gradient_norm iteration_s step_s tokens tokens_per_second bytes_sent"


def test_run_trains_and_leaves_summary_metrics_logs_and_pids(start: Start, workplace: Path) -> None:
    rate = "optimizer.learning_rate=0.01"
    process = start(
        "0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=whole", rate, "timeline_every=2", cold=True
    )
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    folder = workplace / "runs" / "whole"
    summary = json.loads((folder / "summary.json").read_text())
    assert " ".join(summary) == SUMMARY_KEYS
    assert summary["iterations"] == 5
    assert summary["loss_last"] < summary["loss_first"]
    # Emulation can make a step longer than expected, never shorter.
    assert summary["measured_step_s"] >= 0.99 * summary["expected_step_s"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(5))
    assert all(" ".join(line) == METRICS_KEYS for line in lines)
    # Six microbatches cross four hops each, 16 KiB and a header of 64 bytes at a time.
    assert {line["bytes_sent"] for line in lines} == {6 * 4 * (4 * 2 * 32 * 64 + 64)}
    assert str(folder) in output
    # A finished run leaves a model, and says where.
    assert find_latest(folder).meta.iteration == 5
    assert f"model                    {find_latest(folder).folder}\n" in output
    pids = process_ids(folder)
    assert sorted(pids) == list(range(6))
    assert not any(alive(pid) for pid in pids.values())
    assert all((folder / f"node-{node}.log").read_text() for node in range(6))
    spans = [json.loads(line) for line in (folder / "timeline.jsonl").read_text().splitlines()]
    assert {span["iteration"] for span in spans} == {0, 2, 4}
    assert len([span for span in spans if span["iteration"] == 0 and span["task"] != "sync"]) == 6 * 5


@pytest.mark.parametrize(("number", "timing"), [(signal.SIGINT, Timing.EMULATED), (signal.SIGTERM, Timing.REAL)])
def test_a_signal_stops_every_node(start: Start, workplace: Path, number: signal.Signals, timing: Timing) -> None:
    name = f"stopped-{number.name}"
    process = start(
        *("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", f"name={name}"),
        *("iterations=100000", NONE, *timing.fields),
        # Ctrl-C is what Python has a handler of its own for, which a user's interpreter begins with.
        cold=number is signal.SIGINT,
    )
    folder = workplace / "runs" / name
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    process.send_signal(number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=SECONDS)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    assert "stopped" in errors
    assert not any(alive(pid) for pid in process_ids(folder).values())
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize("queueing", ["link", "uplink"])
def test_emulated_messages_wait_for_each_other_as_the_schedule_expects(
    start: Start, workplace: Path, tmp_path: Path, queueing: Queueing
) -> None:
    small = small_schedule()
    busy_s = np.full((small.nodes, small.nodes), 0.15)
    schedule = small.with_costs(small.costs.with_queueing(queueing, busy_s))
    expected = schedule.plan("ca-partial").expected_step_s
    assert expected > 1.2 * small.plan("ca-partial").expected_step_s
    schedule.save(tmp_path / "schedule.json")
    own = [f"schedule={tmp_path}/schedule.json", f"runs={tmp_path}", "name=queues", "iterations=2"]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *own)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    summary = json.loads((tmp_path / "queues" / "summary.json").read_text())
    assert summary["expected_step_s"] == expected
    # Emulation can make a step longer than expected, never shorter.
    assert summary["measured_step_s"] >= 0.99 * expected


class Addresses(Enum):
    """How two machines are reached: fields of each, and the host of the first; one of them in real time."""

    IPV4 = (["peers.host=127.0.0.1"], ["peers.host=127.0.0.1"], "127.0.0.1")
    IPV6 = (["peers.host=::1"], ["peers.host=::1"], "[::1]")
    ADVERTISED = (["peers.host=127.0.0.1"], ["peers.host=0.0.0.0", "peers.advertise=127.0.0.3"], "127.0.0.1")


@pytest.mark.parametrize("addresses", Addresses)
def test_two_machines_meet_through_configured_ports(addresses: Addresses, start: Start, workplace: Path) -> None:
    port = free_ports(6)
    here, there, host = addresses.value
    common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}"]
    timing = Timing.REAL if addresses is Addresses.IPV6 else Timing.EMULATED
    common += [f'peers.bootstrap=["{host}:{port}"]', *timing.fields]
    secret = {"SKIPPIPE_SECRET": "a secret that both machines know"}
    names = [f"{addresses.name}-first-half", f"{addresses.name}-second-half"]
    halves = [
        start("0", "2", *common, *here, f"name={names[0]}", **secret),
        start("2", "6", *common, *there, f"name={names[1]}", **secret),
    ]
    for process in halves:
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
    summaries = [json.loads((workplace / "runs" / name / "summary.json").read_text()) for name in names]
    assert summaries[0]["loss_last"] == summaries[1]["loss_last"]
    assert summaries[0]["bytes_sent"] == summaries[1]["bytes_sent"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["0", "6", "fastest", "2"], "has no setting 'fastest', only baseline, ca-partial"),
        (["0", "6", "random", "2"], "has no setting 'random'"),
        (["0", "6", "ca-partial", "0"], "SAMPLES must be a whole number of at least 1"),
        (["0", "6", "ca-partial", "two"], "SAMPLES must be a whole number"),
        (["0", "7", "ca-partial", "2"], "LAST 7 is beyond the 6 nodes"),
        (["3", "3", "ca-partial", "2"], "FIRST 3 must be below LAST 3"),
        (["-1", "6", "ca-partial", "2"], "FIRST"),
        (["0", "3", "ca-partial", "2"], "peers.first_port"),
        (["0", "6", "ca-partial", "2", "model.layers_per_stage=2"], "model.layers_per_stage=1"),
        (["0", "6", "ca-partial", "2", "emulation.enabled=false", "model.d_model=128"], "model.d_model=64"),
        (
            ["0", "6", "ca-partial", "2", "emulation.enabled=false", "model.feed_forward=128"],
            "pipeline.feed_forward is 256, but model.feed_forward is 128; add model.feed_forward=256",
        ),
        (["0", "6", "ca-partial", "2", "model.blocks=mamba"], "transformers, simplellm"),
        (["0", "6", "ca-partial", "2", "optimiser.clip=2"], "did you mean optimizer"),
        (["0", "6", "ca-partial", "2", "data.paths=[nowhere]"], "nowhere"),
    ],
)
def test_bad_arguments_give_one_line_before_anything_starts(
    start: Start, workplace: Path, arguments: list[str], expected: str
) -> None:
    process = start(*arguments[:4], f"{workplace}/small.yaml", *arguments[4:], "name=never")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert expected in errors
    assert len(errors.strip().splitlines()) <= 2, errors
    assert not list((workplace / "runs" / "never").glob("node-*"))


def test_other_samples_warn_and_simulate_again(start: Start, workplace: Path) -> None:
    process = start("0", "6", "ca-partial", "4", f"{workplace}/small.yaml", "name=samples", "iterations=1", NONE)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert "made for 2 samples" in errors
    assert not (workplace / "runs" / "samples" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("encoding", "ratio", "timing"), [("bf16", 0.5, Timing.EMULATED), ("int8", 0.25 + 1 / 64, Timing.REAL)]
)
def test_compressed_links_send_less_and_still_train(
    start: Start, workplace: Path, encoding: str, ratio: float, timing: Timing
) -> None:
    fields = [f"name={encoding}", f"compression.encoding={encoding}", "optimizer.learning_rate=0.01", *timing.fields]
    process = start("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", *fields)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    summary = json.loads((workplace / "runs" / encoding / "summary.json").read_text())
    assert summary["loss_last"] < summary["loss_first"]
    assert summary["bytes_sent"] == 5 * 6 * 4 * (ratio * 4 * 2 * 32 * 64 + 64)
