"""What compressed hops and syncs cost: bytes by their ratio, expected times simulated again, and back."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skippipe.cli.run import check
from skippipe.config import SYNC_BLOCK, CompressionConfig, Encoding
from skippipe.schedule import Schedule
from skippipe.schedule.compression import with_compression
from skippipe.schedule.costs import sync_seconds
from tests.small_schedule import small_schedule

EXACT = CompressionConfig()


@pytest.mark.parametrize(("encoding", "ratio"), [("bf16", 0.5), ("int8", 0.25 + 1 / SYNC_BLOCK)])
def test_a_sync_shrinks_with_its_bytes_and_the_step_with_it(encoding: Encoding, ratio: float) -> None:
    exact = small_schedule()
    schedule = with_compression(CompressionConfig(sync=encoding), exact)
    for name, plan in schedule.settings.items():
        before = exact.plan(name)
        assert plan.sync_s == pytest.approx([ratio * seconds for seconds in before.sync_s])
        assert plan.expected_iteration_s == before.expected_iteration_s
        assert plan.expected_step_s == pytest.approx(schedule.simulate(name).step_s)
        assert plan.expected_step_s < before.expected_step_s
    assert schedule.pipeline.sync_bytes == pytest.approx([ratio * moved for moved in exact.pipeline.sync_bytes])
    np.testing.assert_array_equal(schedule.costs.hop_s, exact.costs.hop_s)


def test_the_originals_syncs_are_what_their_encoded_bytes_take() -> None:
    schedule = with_compression(CompressionConfig("int8", sync="int8"), Schedule.load("original-20-nodes"))
    plan = schedule.plan("ca-partial")
    for stage, seconds, moved in zip(plan.stages, plan.sync_s, schedule.pipeline.sync_bytes, strict=True):
        assert seconds == pytest.approx(sync_seconds(list(stage), schedule.bandwidth_gib_s, moved))
    assert plan.expected_step_s == pytest.approx(25.702, abs=1e-3)


def test_a_schedule_made_for_one_compression_is_simulated_again_for_another() -> None:
    exact = Schedule.load("original-20-nodes")
    asked = CompressionConfig("bf16", sync="int8")
    made = Schedule.from_json(with_compression(asked, exact).to_json())
    assert (made.pipeline.hop_encoding, made.pipeline.sync_encoding) == ("bf16", "int8")
    assert with_compression(asked, made) is made
    for wanted in (EXACT, CompressionConfig("int8", sync="bf16"), CompressionConfig("int8", below_gib_s=0.05)):
        again, direct = with_compression(wanted, made), with_compression(wanted, exact)
        np.testing.assert_allclose(again.costs.hop_s, direct.costs.hop_s, rtol=1e-12)
        for name, plan in again.settings.items():
            assert plan.sync_s == pytest.approx(direct.plan(name).sync_s)
            assert plan.expected_step_s == pytest.approx(direct.plan(name).expected_step_s)
    assert with_compression(EXACT, made).to_json().count("encoding") == 0


def test_samples_and_compression_go_in_either_order() -> None:
    asked, exact = CompressionConfig("int8", sync="bf16"), small_schedule(hop_s=1.0)
    exact = replace(exact, bandwidth_gib_s=exact.transfer_s)  # so that the bytes take about as long as the latency
    first = with_compression(asked, exact).with_samples(8)
    second = with_compression(asked, exact.with_samples(8))
    np.testing.assert_allclose(first.costs.hop_s, second.costs.hop_s, rtol=1e-12)
    assert first.pipeline == second.pipeline


def test_a_run_says_so_if_its_messages_are_written_otherwise_than_the_schedules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = with_compression(CompressionConfig("bf16", sync="int8"), small_schedule())
    made.save(tmp_path / "made.json")
    small_schedule().save(tmp_path / "exact.json")

    def checked(name: str, *fields: str) -> Schedule:
        overrides = [f"schedule={tmp_path / name}", *fields]
        arguments = argparse.Namespace(
            first="0", last="6", setting="ca-partial", samples="2", overrides=overrides, join=False
        )
        return check(arguments)[1]

    assert checked("made.json", "compression.encoding=bf16", "compression.sync=int8").to_json() == made.to_json()
    checked("exact.json", "compression.sync=int8")
    assert capsys.readouterr().err == ""
    assert checked("made.json").pipeline == small_schedule().pipeline
    assert "made.json was made for hops in bf16 and syncs in int8; expected times" in capsys.readouterr().err
