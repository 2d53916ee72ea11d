"""Whatever makes two machines train something else is a field that they compare."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skippipe.config import DataConfig, RunConfig
from skippipe.data.prepared import TokenFile
from skippipe.runtime.equal import OWN, equal_fields, file_digest
from skippipe.transport.run_identity import RunIdentity
from tests.small_schedule import small_schedule

SCHEDULE = small_schedule()


@pytest.fixture
def prepared(tmp_path: Path) -> TokenFile:
    """Two files that stand for a tokenizer and tokens."""
    for name in ("tokenizer.model", "tokens.npy"):
        (tmp_path / name).write_bytes(name.encode())
    fields: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(TokenFile)}
    return TokenFile(**{**fields, "tokenizer": tmp_path / "tokenizer.model", "tokens": tmp_path / "tokens.npy"})


def fields_of(prepared: TokenFile, config: RunConfig = RunConfig(), **changed: Any) -> dict[str, str]:  # noqa: B008
    given = {"schedule": SCHEDULE, "setting": "ca-partial", **changed}
    return equal_fields(config=config, prepared=prepared, **given)


def named(here: Mapping[str, str], there: Mapping[str, str]) -> set[str]:
    """The fields that the two are told to differ in."""
    ours, theirs = RunIdentity(dict(here)), RunIdentity(dict(there))
    return {text.rpartition(" (")[0] for text in ours.differences(theirs.table, theirs.run_id)}


def leaves(config: Any, prefix: str = "") -> Iterator[str]:
    """Names of all fields of a configuration, as the user writes them."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@pytest.mark.parametrize("name", list(leaves(RunConfig())))
def test_every_field_of_the_configuration_is_compared_or_may_differ(prepared: TokenFile, name: str) -> None:
    first = name.partition(".")[0]
    assert (name in fields_of(prepared)) != (name in OWN or first in OWN)


def test_setting_samples_and_schedule_are_compared(prepared: TokenFile) -> None:
    here = fields_of(prepared)
    assert named(here, fields_of(prepared, setting="baseline")) == {"SETTING"}
    assert named(here, fields_of(prepared, schedule=SCHEDULE.with_samples(4))) == {"SAMPLES", "the schedule"}
    other = replace(SCHEDULE, costs=replace(SCHEDULE.costs, backward_factor=2.0))
    assert named(here, fields_of(prepared, schedule=other)) == {"the schedule"}


def test_tokens_and_tokenizer_are_compared_by_what_is_in_them(prepared: TokenFile, tmp_path: Path) -> None:
    here = fields_of(prepared)
    (tmp_path / "tokens.npy").write_bytes(b"tokens.npz")
    assert named(here, fields_of(prepared)) == {"the text"}
    (tmp_path / "tokenizer.model").write_bytes(b"tokenizer.molel")
    assert named(here, fields_of(prepared)) == {"the text", "the tokenizer"}


def test_the_python_whose_library_is_the_text_is_compared(prepared: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    library = replace(RunConfig(), data=replace(RunConfig().data, source="stdlib"))
    here = fields_of(prepared, library)
    monkeypatch.setattr("platform.python_version", lambda: "3.11.99")
    assert named(here, fields_of(prepared, library)) == {"Python, whose library is the text"}


def test_a_run_that_is_resumed_is_another_one(prepared: TokenFile) -> None:
    here = fields_of(prepared)
    assert named(here, fields_of(prepared, resumes=True)) == {"the iteration to begin with"}


def test_a_model_of_the_same_sizes_is_another_one(prepared: TokenFile, tmp_path: Path) -> None:
    for name, number in (("base", 1), ("tuned", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"layers": 4}))
        (tmp_path / name / "model.safetensors").write_bytes(bytes([number]) * 100)
    configs = [
        replace(RunConfig(), model=replace(RunConfig().model, init_from=str(tmp_path / name)))
        for name in ("base", "tuned")
    ]
    here, there = (fields_of(prepared, config) for config in configs)
    assert named(here, there) == {"the files of model.init_from"}
    assert file_digest(tmp_path / "base" / "config.json") == file_digest(tmp_path / "tuned" / "config.json")


def test_another_machines_library_goes_by_that_machines_python(prepared: TokenFile) -> None:
    name = "Python, whose library is the text"
    assert fields_of(prepared)[name] == platform.python_version()
    assert fields_of(prepared, python="3.99.0")[name] == "3.99.0"
    files = RunConfig(data=DataConfig(source="files", paths=("text",)))
    assert name not in fields_of(prepared, files, python="3.99.0")
