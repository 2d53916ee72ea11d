"""Batches from a stream: each text once in a pass, none that is held out, the same from wherever somebody goes on."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy
import pytest
import torch

from skippipe.config import DataConfig
from skippipe.data import stream
from skippipe.data.batches import prepare, validation_batches
from skippipe.data.parts import Parts, first_positions
from skippipe.data.stream import Position, StreamBatches, positions_after
from skippipe.data.tokenizer import load_tokenizer
from skippipe.errors import UserError
from tests.data.conftest import write_dataset

PARTS, SAMPLES, CONTEXT = 3, 2, 16
NUMBERS = (3, 1, 2)
"""Batches of each part in an iteration."""
FILES, DOCUMENTS, ITERATIONS, PASSES = 3, 40, 160, 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def texts(folder):
    return write_dataset(folder / "set", FILES, DOCUMENTS)


@pytest.fixture(scope="module")
def config(folder, texts):
    hub, cache = str(folder / "set"), str(folder / "cache")
    return DataConfig(source="hub", hub=hub, vocabulary=400, validation_fraction=0.2, cache=cache)


@pytest.fixture(scope="module")
def streamed(config):
    return prepare(config)


@pytest.fixture(autouse=True)
def _short_groups(monkeypatch):
    """So that iterations begin and end in the middle of a group, and after several."""
    monkeypatch.setattr(stream, "GROUP_CHARACTERS", 500)


def parts_of(streamed, numbers=NUMBERS, saved=(), iteration=0):
    parts = Parts(streamed, numbers, SAMPLES, CONTEXT, seed=0)
    parts.begin(iteration, positions_after(saved, len(numbers), FILES))
    return parts


def train(parts, iterations):
    """Read everything of so many iterations: batches by iteration, part and number, and where each iteration begins."""
    batches, begins = {}, {}
    for iteration in range(parts.iteration, parts.iteration + iterations):
        begins[iteration] = parts.positions
        for part, count in enumerate(parts.numbers):
            for number in range(count):
                batches[iteration, part, number] = parts.batch(iteration, part, number)
        parts.go_on(parts.ends())
    begins[parts.iteration] = parts.positions
    return batches, begins


def expected_tokens(streamed, texts, part, parts, passes=1):
    """Tokens of a part's documents in turn, each with its end."""
    tokenizer = load_tokenizer(streamed.tokenizer)
    documents = [text for file, own in enumerate(texts) for row, text in enumerate(own) if (row + file) % parts == part]
    kept = [text for text in documents if not streamed.is_held_out(text)]
    return passes * [token for text in kept for token in (*tokenizer.encode(text), tokenizer.eos_id)]


@pytest.mark.parametrize("numbers", [NUMBERS, (10,), (2,) * 7])
def test_each_text_is_trained_on_once_in_a_pass_and_in_one_part(streamed, texts, numbers):
    batches, _ = train(parts_of(streamed, numbers), ITERATIONS)
    for part, count in enumerate(numbers):
        expected = expected_tokens(streamed, texts, part, len(numbers), passes=PASSES)
        read = [batches[iteration, part, number] for iteration in range(ITERATIONS) for number in range(count)]
        tokens = torch.cat([tokens.flatten() for tokens, _ in read]).tolist()
        targets = torch.cat([targets.flatten() for _, targets in read]).tolist()
        assert tokens == expected[: len(tokens)]
        assert targets == expected[1 : len(tokens) + 1]
        assert read[0][0].shape == read[0][1].shape == (SAMPLES, CONTEXT)
        assert read[0][0].dtype == read[0][1].dtype == torch.int64
        # It was more than a pass.
        assert len(tokens) > len(expected) // PASSES


def test_whoever_goes_on_from_a_position_reads_the_same(streamed):
    batches, begins = train(parts_of(streamed), 60)
    generator = random.Random(3)
    heirs = Parts(streamed, NUMBERS, SAMPLES, CONTEXT, seed=0)
    for iteration in (0, 1, 2, 3, 17, 16, 5, 59, 58, *range(35, 50)):
        heirs.begin(iteration, begins[iteration])
        wanted = [key for key in batches if key[0] == iteration]
        # Some of an iteration's batches, in any order, some of them twice.
        for key in generator.choices(wanted, k=4):
            for mine, theirs in zip(heirs.batch(*key), batches[key], strict=True):
                assert torch.equal(mine, theirs)
        heirs.go_on(heirs.ends())
        assert heirs.positions == begins[iteration + 1]


def test_where_a_part_goes_on_is_told_once_it_is_read_and_else_found_out(streamed):
    _, begins = train(parts_of(streamed), 2)
    parts = parts_of(streamed)
    assert parts.ends() == {}
    parts.batch(0, 0, 0)
    parts.batch(0, 2, 1)
    assert parts.ends()[2] == begins[1][2]
    told = {1: begins[1][1], **parts.ends()}
    parts.go_on(told)
    assert parts.positions == begins[1]
    # Of a part that nobody has read before, and from another iteration on.
    other = parts_of(streamed, saved=begins[1], iteration=1)
    other.go_on({})
    assert other.positions == begins[2]


def test_what_others_have_read_is_passed_over(streamed, monkeypatch):
    _, begins = train(parts_of(streamed), 3)
    parts, rows = parts_of(streamed), []
    texts = type(streamed.text).texts

    def noting(own, file, row=0, step=1):
        rows.append((file, row))
        return texts(own, file, row, step)

    monkeypatch.setattr(type(streamed.text), "texts", noting)
    for iteration in range(3):
        assert parts.positions == begins[iteration]
        parts.go_on(dict(enumerate(begins[iteration + 1])))
    assert rows == []
    parts.batch(3, 0, 0)
    assert rows[0] == begins[3][0][:2]


def test_nothing_is_read_before_the_first_batch_but_a_sample_for_the_tokenizer(tmp_path, config, streamed):
    write_dataset(tmp_path / "set", 3, 40)
    for file in (1, 2):
        (tmp_path / "set" / f"part-{file}.jsonl").write_text("this is not JSON\n")
    given = dataclasses.replace(config, hub=str(tmp_path / "set"), tokenizer=str(streamed.tokenizer))
    parts = parts_of(prepare(given))
    for part in range(PARTS):
        parts.batch(0, part, 0)
    with pytest.raises(UserError, match=r"data\.hub .*can't be streamed"):
        train(parts, 40)


def test_held_out_documents_are_told_by_their_contents_and_never_trained_on(tmp_path, config, streamed, texts):
    everything = [text for own in texts for text in own]
    held_out = [text for text in everything if streamed.is_held_out(text)]
    assert 0.1 * len(everything) < len(held_out) < 0.3 * len(everything)
    tokenizer = load_tokenizer(streamed.tokenizer)
    expected = [token for text in held_out for token in (*tokenizer.encode(text), tokenizer.eos_id)]
    batches = list(validation_batches(streamed, 4, CONTEXT, 10**6))
    tokens = torch.cat([tokens.flatten() for tokens, _ in batches]).tolist()
    assert tokens == expected[: len(tokens)]
    assert len(expected) - len(tokens) <= CONTEXT
    few = list(validation_batches(streamed, 4, CONTEXT, 2))
    assert all(torch.equal(mine[0], whole[0]) for mine, whole in zip(few, batches, strict=False))
    assert len(few) == 2
    # A stream with each text twice trains on none of both.
    folder = tmp_path / "set"
    write_dataset(folder, FILES, DOCUMENTS)
    for path in sorted(folder.iterdir()):
        (folder / f"z{path.name}").write_text(path.read_text())
    doubled = prepare(dataclasses.replace(config, hub=str(folder), tokenizer=str(streamed.tokenizer)))
    assert [doubled.is_held_out(text) for text in everything] == [streamed.is_held_out(text) for text in everything]


def test_held_out_text_is_read_once_for_all(config, streamed, monkeypatch):
    batches = list(validation_batches(streamed, 2, CONTEXT, 3))
    monkeypatch.setattr(type(streamed.text), "documents", None)
    again = list(validation_batches(prepare(config), 2, CONTEXT, 3))
    assert all(torch.equal(mine[1], theirs[1]) for mine, theirs in zip(batches, again, strict=True))
    none = dataclasses.replace(streamed, held_out_part=0.0)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"data\.validation_fraction: 0 tokens are held out"):
        next(validation_batches(none, 2, CONTEXT, 1))


def test_a_part_without_text_is_named(tmp_path, config, streamed):
    write_dataset(tmp_path / "set", 1, 2)
    given = dataclasses.replace(config, hub=str(tmp_path / "set"), tokenizer=str(streamed.tokenizer))
    few = dataclasses.replace(prepare(given), held_out_part=0.0)
    parts = parts_of(few)
    parts.batch(0, 0, 0)
    with pytest.raises(UserError, match=r"data\.hub .*: no text for part 2 of 3"):
        parts.batch(0, 2, 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "rows.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(UserError, match=r"data\.hub: the corpus is empty"):
        prepare(dataclasses.replace(config, hub=str(tmp_path / "empty")))


def test_a_position_that_is_none_is_refused(streamed):
    _, begins = train(parts_of(streamed), 2)
    begin = max(begins[1], key=lambda position: position.used)
    held_out = next(
        row for row in range(0, DOCUMENTS, PARTS) if streamed.is_held_out(dict(streamed.text.texts(0))[row])
    )
    for position in (begin._replace(used=10**12), Position(0, held_out, 1)):
        part = StreamBatches(streamed, position.row % PARTS, PARTS, SAMPLES, CONTEXT, 2)
        with pytest.raises(UserError, match=r"data\.hub .*row \d+ of file \d is not the text"):
            part.begin(1, position)


def test_a_part_that_goes_on_after_its_last_text_begins_again(tmp_path, config, streamed):
    (tmp_path / "set").mkdir()
    lines = [f'{{"text": "{text}"}}\n' for text in ("only one " * 20, " ", " ")]
    (tmp_path / "set" / "one.jsonl").write_text("".join(lines))
    given = dataclasses.replace(config, hub=str(tmp_path / "set"), tokenizer=str(streamed.tokenizer))
    one = dataclasses.replace(prepare(given), held_out_part=0.0)
    heir, whole = (StreamBatches(one, 0, 1, SAMPLES, CONTEXT, 2) for _ in range(2))
    whole.begin(0, Position(0, 0, 0))
    heir.begin(0, Position(0, 1, 0))
    assert torch.equal(heir.batch(0)[0], whole.batch(0)[0])
    assert heir.read_to_end().file == whole.read_to_end().file + 1


def test_files_of_one_document_each_are_shared_out(tmp_path, config, streamed):
    write_dataset(tmp_path / "set", 7, 1)
    given = dataclasses.replace(config, hub=str(tmp_path / "set"), tokenizer=str(streamed.tokenizer))
    parts = Parts(dataclasses.replace(prepare(given), held_out_part=0.0), NUMBERS, SAMPLES, CONTEXT, seed=0)
    parts.begin(0, first_positions(parts.prepared, PARTS))
    tokenizer = load_tokenizer(streamed.tokenizer)
    read = [tokenizer.decode(parts.batch(0, part, 0)[0].flatten().tolist()) for part in range(PARTS)]
    assert [text.split()[0] for text in read] == ["0-0", "1-0", "2-0"]


def test_one_long_document_lasts_for_many_iterations(tmp_path, config, streamed):
    (tmp_path / "set").mkdir()
    text = " ".join(str(number) for number in range(900))
    (tmp_path / "set" / "one.jsonl").write_text(f'{{"text": "{text}"}}\n')
    given = dataclasses.replace(config, hub=str(tmp_path / "set"), tokenizer=str(streamed.tokenizer))
    long = dataclasses.replace(prepare(given), held_out_part=0.0)
    tokenizer = load_tokenizer(streamed.tokenizer)
    expected = itertools.cycle([*tokenizer.encode(text), tokenizer.eos_id])
    batches, begins = train(parts_of(long, numbers=(2,)), 200)
    read = [batches[iteration, 0, number][0].flatten().tolist() for iteration in range(200) for number in range(2)]
    assert list(itertools.chain(*read)) == list(itertools.islice(expected, 400 * SAMPLES * CONTEXT))
    for iteration in (1, 60, 61, 150):
        heir = StreamBatches(long, 0, 1, SAMPLES, CONTEXT, 2)
        heir.begin(iteration, begins[iteration][0])
        assert heir.batch(1)[0].flatten().tolist() == read[2 * iteration + 1]
    assert begins[1][0] == Position(0, 0, 2 * SAMPLES * CONTEXT)
    assert begins[200][0].file > 0


def test_other_origins_go_on_after_all_that_was_begun(streamed, texts):
    _, begins = train(parts_of(streamed), 12)
    saved = begins[12]
    assert positions_after(saved, PARTS, FILES) == saved
    for count in (1, 2, 5):
        begin = positions_after(saved, count, FILES)
        file, row, used = max(saved)
        assert sorted(position.row for position in begin) == list(range(row + (used > 0), row + (used > 0) + count))
        assert all((position.row + file) % count == part for part, position in enumerate(begin))
        assert {(position.file, position.used) for position in begin} == {(file, 0)}
    # Two parts between them read every row from there on.
    batches, _ = train(parts_of(streamed, (2, 2), saved, 12), 1)
    tokenizer = load_tokenizer(streamed.tokenizer)
    file, row, used = max(saved)
    rest = [text for text in texts[file % FILES][row + (used > 0) :] if not streamed.is_held_out(text)]
    firsts = {text.split()[0] for text in rest[:4]}
    shown = [tokenizer.decode(batches[12, part, 0][0].flatten().tolist()).split()[0] for part in range(2)]
    assert set(shown) <= firsts
    assert len(set(shown)) == 2


def test_the_text_is_told_apart_by_dataset_column_and_tokenizer(tmp_path, config, streamed):
    assert prepare(config).digest() == streamed.digest()
    assert prepare(dataclasses.replace(config, vocabulary=300)).digest() != streamed.digest()
    write_dataset(tmp_path / "set", FILES, DOCUMENTS + 1)
    other = dataclasses.replace(config, hub=str(tmp_path / "set"), tokenizer=str(streamed.tokenizer))
    assert prepare(other).digest() != streamed.digest()
    assert numpy.unique([len(streamed.digest())]) == 64
