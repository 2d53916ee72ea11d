"""What a run says if a stream does not just go on from the checkpoint that it resumes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skippipe.cli.run import say_where_it_goes_on, with_revision
from skippipe.config import DataConfig, RunConfig
from skippipe.data.batches import prepare
from skippipe.report.run_folder import read_config
from tests.data.conftest import write_dataset


def test_text_that_does_not_just_go_on_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "set")
    config = RunConfig(data=DataConfig(source="hub", hub=str(tmp_path / "set"), vocabulary=350, cache=str(tmp_path)))
    prepared = prepare(config.data)

    def told(text: str, positions: tuple[tuple[int, ...], ...], parts: int) -> str:
        meta: Any = SimpleNamespace(iteration=4, text=text, positions=positions, config=config)
        checkpoint: Any = SimpleNamespace(folder="theirs", meta=meta)
        say_where_it_goes_on(checkpoint, config, prepared, parts)
        return capsys.readouterr().err

    places = ((1, 6, 0), (4, 13, 7))
    assert told(prepared.digest(), places, 2) == ""
    other = told(prepared.digest(), places, 3)
    assert "theirs is of a run of 2 origins, this one has 3" in other
    assert "in row 14 of file 1;" in other
    assert "theirs was trained on another text (data.hub" in told("0" * 64, places, 2)
    assert "read from its beginning" in told("", (), 2)


def test_the_commit_that_is_read_is_kept(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set")
    data = DataConfig(source="hub", hub=str(tmp_path / "set"), vocabulary=350, cache=str(tmp_path), hub_revision="main")
    config, prepared = RunConfig(data=data), prepare(data)
    # A folder has none.
    assert with_revision(config, prepared, tmp_path) == config
    commit = "ab" * 20
    on_the_hub: Any = SimpleNamespace(revision=commit)
    object.__setattr__(prepared, "text", on_the_hub)
    pinned = with_revision(config, prepared, tmp_path)
    assert pinned.data.hub_revision == commit
    assert read_config(tmp_path) == pinned
