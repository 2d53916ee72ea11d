"""Overrides on the command line: whatever they hold, a field's value or one short line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.fields import build, load_config


@pytest.mark.parametrize("name", ["2026-02-30", "2026-02-03", "a name"])
def test_what_looks_like_a_date_is_a_name(name: str) -> None:
    assert load_config(RunConfig, None, [f"name={name}"]).name == name


@pytest.mark.parametrize(
    "override",
    [
        "iterations=" + "9" * 5000,
        "iterations=" + "9" * 4000,
        "iterations=2026-02-30",
        "seed=0x" + "f" * 5000,
        "name=" + "9" * 5000,
        "name=" + "9" * 4000,
        "name=..",
        "name=a/b",
        'name="\\0"',
        'runs="a\\0b"',
        'peers.secret_file="\\0"',
        "data.paths=" + "[" * 5000,
        "9" * 5000 + "=1",
        "9" * 5000,
        "peers.bootstrap=[a:" + "9" * 5000 + "]",
        "optimizer.learning_rate=" + "9" * 4000,
        "optimizer.learning_rate=1e25",
        "optimizer.clip=1e16",
        "optimizer.epsilon=1e-40",
        "optimizer.weight_decay=1e6",
        "optimizer.dropped_in_a_row=0",
        "timeline_every=0",
        "model.d_model=80000000000",
        "model.context=1000000000",
    ],
)
def test_nonsense_is_one_short_line(override: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(RunConfig, None, [override])
    assert len(str(raised.value)) < 600
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("precision=xyz", "argument 'precision=xyz': precision must be one of fp32, bf16, not 'xyz'"),
        ("iterations=0", "argument 'iterations=0': iterations must be positive, not 0"),
        ("model.heads=0", "argument 'model.heads=0': model.heads must be positive, not 0"),
        ("optimiser.clip=1", "argument 'optimiser.clip=1': no field optimiser; did you mean optimizer?"),
        ("model.head=1", "argument 'model.head=1': no field model.head; did you mean model.heads?"),
        ("model.heads=4", "RUN: model.d_model must be a multiple of 2 x heads = 8, not 20"),
        ("seed=1", "RUN: model.d_model must be a multiple of 2 x heads = 4, not 18"),
    ],
)
def test_where_the_mistake_stands_is_named(tmp_path: Path, override: str, said: str) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(f"model: {{d_model: {18 if override == 'seed=1' else 20}, heads: 2}}\n")
    with pytest.raises(UserError) as raised:
        load_config(RunConfig, run, [override])
    assert str(raised.value).startswith(said.replace("RUN", str(run)))


@pytest.mark.parametrize("text", ["a\0b", "half of a character: \ud800"])
def test_text_that_no_file_can_hold_is_refused_wherever_it_comes_from(text: str) -> None:
    with pytest.raises(UserError, match=r"^stage-2.safetensors: data.cache has characters that no file's name"):
        build(RunConfig, {"data": {"cache": text}}, "stage-2.safetensors")


FIELDS = st.sampled_from(["name", "iterations", "seed", "device", "data.paths", "peers.bootstrap", "optimizer.clip"])


@given(FIELDS, st.text())
def test_any_text_is_a_value_or_a_users_error(field: str, text: str) -> None:
    with contextlib.suppress(UserError):
        load_config(RunConfig, None, [f"{field}={text}"])


def test_what_neither_file_nor_argument_gives_is_as_in_the_base(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seed: 5\npeers: {host: 10.0.0.9}\n")
    base = {"seed": 1, "iterations": 2, "peers": {"host": "10.0.0.1", "first_port": 4000, "restart": 7}}
    config = load_config(RunConfig, tmp_path / "run.yaml", ["peers.first_port=5000"], base)
    assert (config.seed, config.iterations) == (5, 2)
    assert (config.peers.host, config.peers.first_port, config.peers.restart) == ("10.0.0.9", 5000, 7)
    assert base["peers"] == {"host": "10.0.0.1", "first_port": 4000, "restart": 7}, "it was changed"
    with pytest.raises(UserError, match="peers must be a section"):
        load_config(RunConfig, None, ["peers=5"], base)
