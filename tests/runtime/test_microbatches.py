"""Where a stream goes on is told by whoever has read it: those who read nothing know it, and so do those who join."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from skippipe.config import DataConfig, ModelConfig, RunConfig
from skippipe.data.batches import prepare
from skippipe.data.prepared import Prepared
from skippipe.model.checkpoint_meta import Meta
from skippipe.runtime.equal import equal_fields
from skippipe.runtime.figures import COUNT, figures_of, widths
from skippipe.runtime.gradients import Exchange
from skippipe.runtime.job import Job
from skippipe.runtime.microbatches import Microbatches
from skippipe.runtime.state import Knowledge
from tests.data.conftest import write_corpus, write_dataset
from tests.small_schedule import small_schedule

SCHEDULE = small_schedule()
PLAN = SCHEDULE.plan("ca-partial")
ORIGINS = PLAN.stages[0]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("hub")
    write_dataset(folder / "set", files=3, documents=20)
    hub, cache = str(folder / "set"), str(folder / "cache")
    return RunConfig(data=DataConfig(source="hub", hub=hub, vocabulary=400, cache=cache), model=ModelConfig(context=32))


@pytest.fixture(scope="module")
def prepared(config: RunConfig) -> Prepared:
    return prepare(config.data)


def node_of(config: RunConfig, prepared: Prepared, meta: Meta | None = None) -> Microbatches:
    """What a node reads, of a run that may go on from a checkpoint."""
    machine: Any = None
    checkpoint: Any = SimpleNamespace(meta=meta) if meta else None
    return Microbatches(Job(machine, "ca-partial", SCHEDULE, config, prepared, checkpoint))


def rows_of(told: dict[int, list[float]]) -> dict[int, list[float]]:
    """Rows as nodes share them, with figures before."""
    return {node: [1.0] * COUNT + places for node, places in told.items()}


def read_own(nodes: dict[int, Microbatches], iteration: int) -> dict[int, torch.Tensor]:
    """Each origin reads its microbatches; their tokens."""
    return {m: nodes[origin].read(iteration, m)[0] for m, (origin, *_) in enumerate(PLAN.paths)}


def test_who_reads_nothing_knows_where_the_text_goes_on(config: RunConfig, prepared: Prepared) -> None:
    nodes = {node: node_of(config, prepared) for node in range(6)}
    assert nodes[3].width == 3 * len(ORIGINS)
    assert widths(nodes[3].width)[Exchange.FIGURES] == COUNT + 6
    read = []
    for iteration in range(5):
        read.append(read_own(nodes, iteration))
        rows = rows_of({node: own.ends() for node, own in nodes.items()})
        assert len(figures_of(rows)) == 6
        for own in nodes.values():
            own.go_on(rows)
        assert len({tuple(own.now()) for own in nodes.values()}) == 1
    assert [sorted(own.parts.streams) for own in nodes.values()] == [[0], [1], [], [], [], []]
    # An heir of microbatches of both.
    for microbatch, tokens in read_own(dict.fromkeys(range(6), nodes[4]), 5).items():
        origin = PLAN.paths[microbatch][0]
        assert torch.equal(tokens, nodes[origin].read(5, microbatch)[0])


def test_a_row_that_is_missing_is_made_up_for(config: RunConfig, prepared: Prepared) -> None:
    whole, lacking = node_of(config, prepared), node_of(config, prepared)
    read_own(dict.fromkeys(range(6), whole), 0)
    rows = rows_of({0: whole.ends()})
    whole.go_on(rows)
    places = rows[0][:]
    places[COUNT : COUNT + 3] = [0.0] * 3
    lacking.go_on({0: places})
    assert lacking.now() == whole.now()


def test_who_joins_is_told_where_the_text_goes_on(config: RunConfig, prepared: Prepared) -> None:
    there, joins = node_of(config, prepared), node_of(config, prepared)
    for iteration in range(3):
        read_own(dict.fromkeys(range(6), there), iteration)
        there.go_on(rows_of({0: there.ends()}))
    known = Knowledge(
        "0123456789abc" * 2, 3.0, 1, 2, 0.0, there.now(), {0: [1.5] * (COUNT + 6), 4: [2.5] * (COUNT + 6)}
    )
    assert Knowledge.from_tensor(known.to_tensor([0, 4]), [0, 4]) == known
    joins.join(3, known.places)
    for microbatch in range(len(PLAN.paths)):
        assert torch.equal(joins.read(3, microbatch)[0], there.read(3, microbatch)[0])


def test_a_checkpoint_says_where_the_text_goes_on_if_it_is_the_same(config: RunConfig, prepared: Prepared) -> None:
    first = node_of(config, prepared)
    read_own(dict.fromkeys(range(6), first), 0)
    first.go_on(rows_of({0: first.ends()}))
    meta = Meta(1, 3, prepared.vocabulary, "ca-partial", "", "", config, **first.parts.place(1))
    assert node_of(config, prepared, meta).now() == first.now()
    other = dataclasses.replace(meta, text="0" * 64)
    assert node_of(config, prepared, other).now() == node_of(config, prepared).now() == [0, 0, 0, 0, 1, 0]


def test_token_files_need_no_place(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    data = DataConfig(source="files", paths=(str(tmp_path / "corpus"),), vocabulary=400, cache=str(tmp_path / "cache"))
    node = node_of(RunConfig(data=data, model=ModelConfig(context=32)), prepare(data))
    read_own(dict.fromkeys(range(6), node), 0)
    assert (node.width, node.ends(), node.now(), node.parts.place(0)) == (0, [], [], {})
    node.go_on(rows_of({0: node.ends(), 5: []}))
    node.read(1, 0)


def test_machines_compare_what_they_stream(config: RunConfig, prepared: Prepared, tmp_path: Path) -> None:
    def fields(name: str, documents: int) -> dict[str, str]:
        write_dataset(tmp_path / name, files=3, documents=documents)
        data = dataclasses.replace(config.data, hub=str(tmp_path / name), hub_revision=name, cache=str(tmp_path / "c"))
        own = dataclasses.replace(config, data=data)
        return equal_fields(SCHEDULE, "ca-partial", own, prepare(data), None)

    here = equal_fields(SCHEDULE, "ca-partial", config, prepared, None)
    assert fields("copy", 20) == here
    differing = {name for name, value in fields("other", 21).items() if value != here[name]}
    assert differing == {"the text", "the tokenizer"}
