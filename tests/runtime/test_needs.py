"""What nodes will need and do, against the simulated timeline, transformers' model, and what real runs send."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from skippipe.__main__ import main
from skippipe.cli.room import check_memory, check_model
from skippipe.cli.vocabulary import vocabulary_of
from skippipe.config import CompressionConfig, ModelConfig, RunConfig
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.model.blocks import llama_config
from skippipe.model.footprint import footprint
from skippipe.runtime.needs import Needs, needs
from skippipe.schedule import Schedule
from skippipe.schedule.timeline import BACKWARD, FORWARD, LINK, SYNC, Timeline
from tests.small_schedule import STAGES, small_schedule

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VOCABULARY = 300
MODEL = ModelConfig(context=32)


def small(setting: str = "baseline", schedule: Schedule | None = None, **fields: object) -> list[Needs]:
    config = RunConfig(**{"model": MODEL, **fields})  # type: ignore[arg-type]
    return needs(config, schedule or small_schedule(), setting, VOCABULARY)


@pytest.mark.parametrize(("encoding", "ratio"), [("fp32", 1.0), ("bf16", 0.5), ("int8", 0.25 + 1 / 64)])
def test_hops_have_the_bytes_that_runs_report(encoding: str, ratio: float) -> None:
    # As tests/end_to_end/test_run.py finds them in the figures of real nodes.
    rows = small("ca-partial", compression=CompressionConfig(encoding))  # type: ignore[arg-type]
    assert sum(row.hop_bytes for row in rows) == 6 * 4 * (ratio * 4 * 2 * 32 * 64 + 64)


def test_a_sync_sends_all_but_its_own_shard_twice() -> None:
    rows = small()
    assert [row.node for row in rows] == list(range(6))
    assert all(row.sync_bytes == 4 * row.parameters for row in rows), "two replicas: half of it, twice"
    shorter = small(compression=CompressionConfig(sync="bf16"))
    assert all(half.sync_bytes == row.sync_bytes / 2 for half, row in zip(shorter, rows, strict=True))
    assert all(half.state == row.state * 6 / 4 for half, row in zip(shorter, rows, strict=True))


def most_at_once(intervals: list[tuple[float, float]]) -> int:
    """Most intervals that hold one point in time."""
    return max((sum(start <= time < end for start, end in intervals) for time, _ in intervals), default=0)


def held(timeline: Timeline, node: int) -> int:
    """Most microbatches between the start of a forward and the end of a backward of a node."""
    spans = timeline.of_node(node)
    begins = {span.microbatch: span.start_s for span in spans if span.kind == FORWARD}
    ends = {span.microbatch: span.end_s for span in spans if span.kind == BACKWARD}
    return most_at_once([(begins[microbatch], ends[microbatch]) for microbatch in begins])


def waits(timeline: Timeline, node: int) -> int:
    """Most messages that are there before the node takes them."""
    intervals = []
    for microbatch in {span.microbatch for span in timeline if span.kind == LINK}:
        way = timeline.of_microbatch(microbatch)
        for link, after in itertools.pairwise(way):
            if link.kind == LINK and after.node == node:
                intervals.append((link.end_s, after.start_s))
    return most_at_once([interval for interval in intervals if interval[0] < interval[1]])


@pytest.mark.parametrize("setting", ["baseline", "ca-partial"])
@pytest.mark.parametrize("name", ["small", "original-20-nodes"])
def test_held_waiting_and_busy_are_the_simulated_timelines(name: str, setting: str) -> None:
    schedule = small_schedule(forward_s=0.1) if name == "small" else Schedule.load(name)
    timeline, samples = schedule.simulate(setting), schedule.pipeline.samples_per_microbatch
    rows = small(setting, schedule)
    assert len(rows) == schedule.nodes
    for row in rows:
        own = footprint(RunConfig(model=MODEL), row.stage, samples, VOCABULARY)
        assert row.kept == held(timeline, row.node) * own.kept
        assert row.waiting == waits(timeline, row.node) * own.activation
        tasks = [span for span in timeline.of_node(row.node) if span.kind != SYNC]
        assert row.busy_s == pytest.approx(sum(span.end_s - span.start_s for span in tasks))
        sent = [span for span in timeline if span.kind == LINK and span.node == row.node]
        assert row.sent == len(sent) * own.activation
        assert row.state + max(row.kept, row.sent) < row.on_cpu
    assert any(row.waiting for row in rows)


def test_recomputing_and_bf16_need_less_and_larger_microbatches_more() -> None:
    model = ModelConfig(d_model=512, heads=8, context=256)
    plain, again, short = (
        [row.on_cpu for row in small(model=model, **fields)]
        for fields in ({}, {"recompute": True}, {"precision": "bf16"})
    )
    more = [row.on_cpu for row in small(model=model, schedule=small_schedule().with_samples(8))]
    for rows in (again, short):
        assert all(less < row for less, row in zip(rows, plain, strict=True))
    assert all(row > before for row, before in zip(more, plain, strict=True))


def test_a_context_that_no_machine_can_hold_is_refused_before_the_start() -> None:
    check_memory(RunConfig(), small())
    with pytest.raises(UserError, match=r"memory for 6 nodes: \d+\.\d GB are needed, .* recompute=true"):
        check_memory(RunConfig(), small(model=dataclasses.replace(MODEL, context=500_000)))


@pytest.mark.parametrize("name", ["llama-500m", "llama-1.5b"])
def test_the_papers_models_fit_their_schedules_and_are_as_large_as_transformers_makes_them(name: str) -> None:
    config = load_config(RunConfig, CONFIGS / f"{name}.yaml")
    schedule = Schedule.load(config.schedule)
    check_model(config, schedule)
    vocabulary = vocabulary_of(config.data)
    with torch.device("meta"):
        llama = LlamaForCausalLM(llama_config(config.model, len(schedule.plan("baseline").stages), vocabulary))
    assert llama.config.num_hidden_layers == 24
    rows = needs(config, schedule, "ca-partial", vocabulary)
    assert sum({row.stage: row.parameters for row in rows}.values()) == sum(
        parameter.numel() for parameter in llama.parameters()
    )


def test_the_command_prints_a_line_a_node_and_totals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_schedule().save(tmp_path / "schedule.json")
    fields = [f"schedule={tmp_path}/schedule.json", "model.context=32", "data.vocabulary=300"]
    assert main(["plan", *fields, "--setting", "ca-partial"]) == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert [line[:2] for line in lines[1:7]] == [[str(n), str(s)] for s, nodes in enumerate(STAGES) for n in nodes]
    expected = small("ca-partial")
    assert np.allclose([float(line[8]) for line in lines[1:7]], [row.hop_bytes / 1e6 for row in expected], atol=0.05)
    assert np.allclose([float(line[7]) for line in lines[1:7]], [row.on_cpu / 1e9 for row in expected], atol=0.006)
    step_s = small_schedule().plan("ca-partial").expected_step_s
    assert f"step        {step_s:.2f} s expected, {6 * 2 * 32} tokens" in printed.out
    assert "emulated" in printed.err
    assert main(["plan", *fields, "emulation.enabled=false", "model.d_model=128"]) == 2
    assert "add model.d_model=64" in capsys.readouterr().err
