"""What a run leaves is read back as it was written; files that are something else are refused by name."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from skippipe.config import CONFIGS, RunConfig
from skippipe.errors import UserError
from skippipe.report.metrics import (
    IterationMetrics,
    RunSummary,
    SurvivalSummary,
    append_metrics,
    read_metrics,
    read_summary,
    write_summary,
)
from skippipe.report.run_folder import log_file, make_run_folder, process_ids, read_config, write_process_id
from skippipe.report.timeline import append_spans, read_spans
from skippipe.schedule import Schedule
from skippipe.schedule.timeline import BACKWARD, FORWARD, LOSS, SYNC, Span

LINES = [IterationMetrics(i, 7.0 - i, 1.5, 30.0 + i, 50.0 + i, 100, 2.0 + i, 1000) for i in range(3)]


def test_metrics_are_a_line_an_iteration(tmp_path: Path) -> None:
    lines = [*LINES, replace(LINES[0], iteration=3, loss=float("inf"), validation_perplexity=9.5)]
    for line in lines:
        append_metrics(tmp_path, line)
    assert read_metrics(tmp_path) == lines
    first, *_, last = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert "validation_perplexity" not in json.loads(first)
    assert json.loads(last)["validation_perplexity"] == 9.5


def test_launchers_that_share_a_folder_leave_each_iteration_once(tmp_path: Path) -> None:
    many = [replace(LINES[0], iteration=i) for i in range(300)]

    def launcher() -> None:
        for line in many:
            append_metrics(tmp_path, line)

    launchers = [multiprocessing.get_context("fork").Process(target=launcher) for _ in range(2)]
    for process in launchers:
        process.start()
    for process in launchers:
        process.join()
        assert process.exitcode == 0
    assert read_metrics(tmp_path) == many


def test_a_summary_holds_medians_and_sums(tmp_path: Path) -> None:
    plan = Schedule.load(CONFIGS / "schedules/original-20-nodes.json").plan("ca-partial")
    summary = RunSummary.of("ca-partial", 20, plan, LINES, SurvivalSummary())
    assert (summary.iterations, summary.loss_first, summary.loss_last, summary.bytes_sent) == (3, 7.0, 5.0, 3000)
    assert (summary.measured_iteration_s, summary.measured_step_s, summary.tokens_per_second) == (31.0, 51.0, 3.0)
    assert summary.measured_over_expected == 51.0 / plan.expected_step_s
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary


def test_spans_come_back_by_iteration(tmp_path: Path) -> None:
    spans = [Span(1, FORWARD, 0, 1e9, 1e9 + 1), Span(1, LOSS, 0, 1e9 + 1, 1e9 + 2), Span(1, SYNC, None, 5.0, 6.0)]
    other = [Span(2, BACKWARD, 7, 0.1, 0.2)]
    append_spans(tmp_path, 0, spans)
    append_spans(tmp_path, 1, other)
    append_spans(tmp_path, 0, other)
    assert read_spans(tmp_path) == {0: spans + other, 1: other}


def test_a_folder_knows_its_configuration_and_its_nodes(tmp_path: Path) -> None:
    config = RunConfig(runs=str(tmp_path), name="mine", iterations=3)
    folder = make_run_folder(config, "joint", 0)
    assert folder == tmp_path / "mine"
    assert read_config(folder) == config
    for node, pid in ((0, 12), (10, 34)):
        write_process_id(folder, node, pid)
    assert process_ids(folder) == {0: 12, 10: 34}
    make_run_folder(config, "joint", 0)
    log_file(folder, 0).touch()
    with pytest.raises(UserError, match="holds a run already"):
        make_run_folder(config, "joint", 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("summary.json", None, r"summary\.json: can't be read"),
        ("summary.json", "{", r"summary\.json: can't be read"),
        ("summary.json", "[]", r"summary\.json: is not a run's .*no JSON object"),
        ("summary.json", '{"setting": "joint"}', r"summary\.json: is not a run's .*'bytes_sent' is missing"),
        ("config.json", "[]", r"config\.json: is not a run's"),
        ("config.json", '{"iterations": "many"}', r"config\.json: iterations"),
        ("metrics.jsonl", None, r"metrics\.jsonl: can't be read"),
        ("metrics.jsonl", "{\n", r"metrics\.jsonl line 1 holds no iteration's figures"),
        ("timeline.jsonl", None, r"timeline\.jsonl: can't be read"),
        ("timeline.jsonl", "\n{\n", r"timeline\.jsonl line 2 is no JSON"),
        (
            "timeline.jsonl",
            '{"iteration": 0, "node": 0, "task": "F0", "start_s": 0, "end_s": 1%s}' % ("0" * 400),
            r"timeline\.jsonl line 1 has a time that is not finite",
        ),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    reader = {
        "summary.json": read_summary,
        "config.json": read_config,
        "metrics.jsonl": read_metrics,
        "timeline.jsonl": read_spans,
    }[name]
    with pytest.raises(UserError, match=message):
        reader(tmp_path)
