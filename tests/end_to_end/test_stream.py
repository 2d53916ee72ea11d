"""Training on a streamed dataset: as one process does, whoever dies, and on after a resume as if it had not stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skippipe.__main__ import main
from skippipe.model.checkpoint import find_latest
from skippipe.replay import LOSS, Recorded, replay
from tests.data.conftest import write_dataset
from tests.end_to_end.conftest import SECONDS, Start, free_ports
from tests.end_to_end.dying import Moment
from tests.end_to_end.exactness import check_exact
from tests.end_to_end.timing import Timing

ITERATIONS = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Fields of a dataset in a folder: an iteration takes about a file of it."""
    folder = tmp_path_factory.mktemp("hub") / "set"
    write_dataset(folder, files=5, documents=8, words=10)
    return ["data.source=hub", f"data.hub={folder}", "data.validation_fraction=0.2", "data.vocabulary=350"]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file that has one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def finish(
    start: Start, workplace: Path, name: str, fields: list[str], *more: str, patched: tuple[str, ...] = ()
) -> tuple[Path, str]:
    """A run to its end: its folder, and what it wrote on stderr."""
    arguments = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", f"name={name}", *fields, *more)
    process = start(*arguments, patched=patched)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    return workplace / "runs" / name, errors


WHO = {Moment.FIRST_TASK: 1, Moment.MIDDLE_TASK: 0, Moment.LAST_TASK: 0, Moment.COMMITTED: 1}
"""Origins: before one has read anything, and after it has read all that it tells the others of, or has told it."""


@pytest.mark.parametrize("moment", WHO)
def test_an_origin_dies_and_comes_back_and_no_text_is_lost_or_read_twice(
    start: Start, workplace: Path, data: list[str], moment: Moment
) -> None:
    fields = [*data, f"iterations={ITERATIONS}", f"checkpoint_every={ITERATIONS}", "emulation.time_scale=1.5"]
    patched = ("dying", moment.name, str(WHO[moment]))
    name = f"stream-{moment.name}"
    folder, _ = finish(start, workplace, name, fields, "peers.silence_seconds=60", patched=patched)
    views = json_lines(folder / "views.jsonl")
    assert [WHO[moment] in view["members"] for view in views] == [True, False, True]
    check_exact(workplace, folder, fields, ITERATIONS)
    recorded = Recorded.read(folder)
    losses = [difference.size for difference in replay(folder, recorded) if difference.what == LOSS]
    assert len(losses) == ITERATIONS
    assert max(losses) < 1e-5


def test_a_resumed_run_reads_on_where_the_other_one_was(
    start: Start, workplace: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = [*data, f"iterations={ITERATIONS}", "checkpoint_every=4", "evaluate_every=4"]
    unbroken, _ = finish(start, workplace, "stream", fields)
    check_exact(workplace, unbroken, fields, ITERATIONS)
    checkpoint = find_latest(unbroken / "checkpoints" / "iteration-000004")
    assert len(checkpoint.meta.positions) == 2
    expected = json_lines(unbroken / "metrics.jsonl")
    assert [line["iteration"] for line in expected if "validation_perplexity" in line] == [3, 7]

    on = ["--resume", str(checkpoint.folder)]
    resumed, errors = finish(start, workplace, "stream-resumed", [*fields, *Timing.REAL.fields], *on)
    assert "warning" not in errors
    lines = json_lines(resumed / "metrics.jsonl")
    for field in ("loss", "gradient_norm", "validation_perplexity"):
        assert [line.get(field) for line in lines] == [line.get(field) for line in expected[4:]]
    recorded = Recorded.read(resumed)
    assert max(difference.size for difference in replay(resumed, recorded, checkpoint)) < 1e-5

    assert main(["evaluate", str(resumed), "--its-paths", "--json"]) == 0
    loss = json.loads(capsys.readouterr().out)["loss"]
    assert 0 < loss < lines[0]["loss"]

    write_dataset(tmp_path / "other", files=2, documents=9)
    other, errors = finish(start, workplace, "stream-other", [*fields, f"data.hub={tmp_path}/other"], *on)
    assert f"warning: {checkpoint.folder} was trained on another text (data.hub " in errors
    assert find_latest(other).meta.text != checkpoint.meta.text


def test_two_machines_stream_their_own_copies_and_notice_another_text(
    start: Start, workplace: Path, tmp_path: Path
) -> None:
    for name, documents in (("here", 8), ("there", 8), ("other", 9)):
        write_dataset(tmp_path / name, files=5, documents=documents)

    def meet(name: str, theirs: str, timing: Timing = Timing.EMULATED) -> list[tuple[int, str]]:
        port = free_ports(6)
        common = ["ca-partial", "2", f"{workplace}/small.yaml", f"peers.first_port={port}", "iterations=3"]
        common += [f'peers.bootstrap=["127.0.0.1:{port}"]', "data.source=hub", "data.vocabulary=350", *timing.fields]
        halves = [
            start(
                *nodes, *common, f"data.hub={tmp_path}/{hub}", f"name={name}-{hub}", SKIPPIPE_SECRET="a secret of both"
            )
            for nodes, hub in ((("0", "1"), "here"), (("1", "6"), theirs))
        ]
        return [(process.communicate(timeout=SECONDS)[1], process.returncode)[::-1] for process in halves]

    losses = []
    for timing in Timing:
        name = f"copies-{timing.name}"
        assert [code for code, _ in meet(name, "there", timing)] == [0, 0]
        folders = [workplace / "runs" / f"{name}-{hub}" for hub in ("here", "there")]
        losses += [[line["loss"] for line in json_lines(folder / "metrics.jsonl")] for folder in folders]
    assert losses == losses[:1] * 4
    assert len(losses[0]) == 3
    others = meet("others", "other")
    assert all(code for code, _ in others)
    # The tokenizer, which was trained on it, differs too.
    assert all("runs something else; it differs in: the text (" in errors for _, errors in others)


def test_a_stream_that_is_too_short_or_missing_is_one_line(start: Start, workplace: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", files=1, documents=30)
    lines = (tmp_path / "set" / "part-0.jsonl").read_text().splitlines(keepends=True)
    # Row 0 is the first origin's, and there is none for the second one.
    (tmp_path / "set" / "part-0.jsonl").write_text(
        "".join([*lines[:1], *['{"text": " ", "number": 1}\n', *lines[2:3]] * 9])
    )
    common = ("0", "6", "ca-partial", "2", f"{workplace}/small.yaml", "name=never-streamed", "data.source=hub")
    for name, expected in (("nowhere", "can't be streamed"), ("set", "no text for part 1 of 2")):
        fields = [f"data.hub={tmp_path}/{name}", "data.vocabulary=300", "data.validation_fraction=1e-9"]
        process = start(*common, *fields)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 2
        assert expected in errors
        assert len(errors.strip().splitlines()) == 1, errors
