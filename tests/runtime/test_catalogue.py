"""Which checkpoint machines go on from: the newest that they have together, and all come to the same choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from skippipe.config import ModelConfig, PeersConfig, RunConfig
from skippipe.errors import NothingToResumeError
from skippipe.model.checkpoint_meta import Meta
from skippipe.model.parts import Part
from skippipe.runtime.catalogue import LISTED, Catalogue

NODES, LAYERS = 4, 6
CONFIG = RunConfig(model=ModelConfig(layers_per_stage=2))
META = Meta(1, 3, 300, "ca-partial", "0" * 64, "1" * 26, CONFIG)


def part(folder: Path, iteration: int, *stages: int, run: str = "1" * 26, extra: tuple[str, ...] = ()) -> Part:
    """Some stages of a checkpoint on a machine's disk; a file's size tells stage and iteration."""
    own = folder / f"iteration-{iteration:06d}"
    own.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        (own / f"stage-{stage}.safetensors").write_bytes(bytes(100 * iteration + stage + 1))
    for name in extra:
        (own / name).write_bytes(b"x")
    # Machines' own fields are no reason to be another checkpoint.
    config = replace(CONFIG, device=f"cuda:{len(folder.name)}", peers=PeersConfig(host="10.0.0.1"))
    return Part(own, replace(META, iteration=iteration, run=run, config=config), stages)


def rows_of(machines: dict[int, list[Part]], newest: dict[int, int] | None = None) -> dict[int, list[float]]:
    catalogue = Catalogue(LAYERS, NODES)
    rows = {node: [0.0] * catalogue.width for node in range(NODES)}
    return rows | {node: catalogue.row(parts, (newest or {}).get(node)) for node, parts in machines.items()}


def choose(rows: dict[int, list[float]]) -> tuple[int, dict[str, dict[int, int]]]:
    found = Catalogue(LAYERS, NODES).choose(rows)
    return found.iteration, found.holders


def test_stages_of_several_machines_make_one_checkpoint(tmp_path: Path) -> None:
    here = [part(tmp_path / "a", 30, 0), part(tmp_path / "a", 20, 0, 1, extra=("feedback-0.safetensors",))]
    there = [part(tmp_path / "bc", 30, 2), part(tmp_path / "bc", 20, 1, 2), part(tmp_path / "bc", 10, 0, 1, 2)]
    iteration, holders = choose(rows_of({0: here, 2: there}))
    assert iteration == 20
    assert holders == {
        "stage-0.safetensors": {0: 2001},
        "stage-1.safetensors": {0: 2002, 2: 2002},
        "stage-2.safetensors": {2: 2003},
        "feedback-0.safetensors": {0: 1},
    }
    found = Catalogue(LAYERS, NODES).choose(rows_of({0: here, 2: there}))
    assert {found.holder("stage-1.safetensors", node) for node in (1, 3)} == {(2, 2002)}
    assert found.holder("stage-1.safetensors", 2) == (0, 2002)


def test_a_checkpoint_that_somebody_names_is_the_newest_for_all(tmp_path: Path) -> None:
    parts = [part(tmp_path, iteration, 0, 1, 2) for iteration in (30, 20, 10)]
    assert choose(rows_of({0: parts}))[0] == 30
    assert choose(rows_of({0: parts, 2: parts[1:]}, {2: 20}))[0] == 20


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    here = [part(tmp_path / "a", iteration, 0) for iteration in (40, 30, 20, 10)]
    there = [part(tmp_path / "b", 30, 2)]
    with pytest.raises(NothingToResumeError) as raised:
        choose(rows_of({0: here, 2: there}))
    assert str(raised.value) == (
        "--resume: no checkpoint is complete over all machines: of iteration 40 nobody has stage 1, 2;"
        " of iteration 30 nobody has stage 1; of iteration 20 nobody has stage 1, 2"
    )
    with pytest.raises(NothingToResumeError, match="no machine has a checkpoint"):
        choose(rows_of({}))


def test_a_run_is_the_same_wherever_its_text_goes_on() -> None:
    later = replace(META, iteration=20, text="ab", positions=((0, 7, 3), (1, 9, 0)))
    assert later.identity == replace(META, text="ab", positions=((0, 1, 0), (1, 1, 0))).identity
    assert later.identity != replace(later, run="2" * 26).identity


def test_parts_of_different_runs_are_no_whole_and_two_wholes_no_choice(tmp_path: Path) -> None:
    here, there = part(tmp_path / "a", 20, 0, 1), part(tmp_path / "b", 20, 2, run="2" * 26)
    with pytest.raises(NothingToResumeError, match="of iteration 20 nobody has stage"):
        choose(rows_of({0: [here], 2: [there]}))
    wholes = {0: [part(tmp_path / "a", 20, 0, 1, 2)], 2: [part(tmp_path / "b", 40, 0, 1, 2, run="2" * 26)]}
    with pytest.raises(
        NothingToResumeError, match="given on node 2's machine and node 0's machine are of different runs"
    ):
        choose(rows_of(wholes))


def test_a_cut_that_the_model_can_not_have_is_refused(tmp_path: Path) -> None:
    own = part(tmp_path, 20, 0, 1, 2, 3)
    with pytest.raises(NothingToResumeError, match="4 stages have not the 6 layers"):
        choose(rows_of({0: [replace(own, meta=replace(own.meta, stages=4))]}))


@settings(max_examples=30, deadline=None)
@given(held=some.lists(some.tuples(some.integers(1, 5), some.integers(0, 2), some.integers(0, NODES - 1)), max_size=25))
def test_the_choice_is_the_newest_whose_stages_are_all_somewhere(
    tmp_path_factory: pytest.TempPathFactory, held: list[tuple[int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("held")
    machines = {
        node: [
            part(folder / str(node), iteration, *sorted({s for i, s, n in held if (i, n) == (iteration, node)}))
            for iteration in sorted({i for i, _, n in held if n == node}, reverse=True)
        ]
        for node in range(NODES)
    }
    whole = [i for i in range(1, 6) if {s for iteration, s, _ in held if iteration == i} == {0, 1, 2}]
    rows = rows_of(machines)
    if not whole:
        with pytest.raises(NothingToResumeError):
            choose(rows)
        return
    iteration, holders = choose(rows)
    assert iteration == max(whole)
    for stage in range(3):
        assert set(holders[f"stage-{stage}.safetensors"]) == {n for i, s, n in held if (i, s) == (iteration, stage)}


def test_only_the_newest_are_told_of(tmp_path: Path) -> None:
    parts = [part(tmp_path, iteration, 0, 1, 2) for iteration in range(40, 0, -1)]
    found = Catalogue(LAYERS, NODES).read(rows_of({0: parts}))
    assert [own.iteration for own in found] == list(range(40, 40 - LISTED, -1))
