"""Preparing a corpus once for many processes, and what each node's batches are made of."""

import dataclasses
import hashlib
import multiprocessing
import os
from pathlib import Path

import numpy
import pytest
import torch

from skippipe.data.batches import Batches, prepare, validation_batches
from skippipe.data.cache import written_once
from skippipe.data.prepared import TokenFile
from skippipe.data.tokenizer import load_tokenizer
from skippipe.errors import UserError

TRAIN, HELD_OUT, CONTEXT = 90_000, 10_000, 16


@pytest.fixture
def positions(tmp_path):
    """A token file whose tokens are their own positions, so that batches show where they come from."""
    path = tmp_path / "tokens.bin"
    numpy.arange(TRAIN + HELD_OUT, dtype="<u4").tofile(path)
    return TokenFile(tmp_path / "none.model", TRAIN + HELD_OUT, path, TRAIN, HELD_OUT)


def test_preparing_gives_the_text_back_and_is_done_once(config, texts):
    prepared = prepare(config)
    tokenizer = load_tokenizer(prepared.tokenizer)
    tokens = prepared.map_tokens().tolist()
    assert prepared.train_tokens + prepared.validation_tokens == len(tokens)
    assert prepared.validation_tokens == pytest.approx(0.05 * len(tokens), abs=1)
    ends = [place for place, token in enumerate(tokens) if token == tokenizer.eos_id]
    starts = [0, *(end + 1 for end in ends[:-1])]
    decoded = [tokenizer.decode(tokens[start:end]) for start, end in zip(starts, ends, strict=True)]
    assert sorted(decoded) == sorted(texts)
    written = prepared.tokens.stat().st_mtime_ns
    assert prepare(config) == prepared
    assert prepared.tokens.stat().st_mtime_ns == written


def test_settings_and_contents_have_their_own_cache_entries(tmp_path, config):
    first = prepare(config)
    assert prepare(dataclasses.replace(config, vocabulary=350)).vocabulary == 350
    (tmp_path / "corpus" / "more.txt").write_text("more and more text\n", encoding="utf-8")
    assert prepare(config).tokens != first.tokens
    given = prepare(dataclasses.replace(config, tokenizer=str(first.tokenizer), vocabulary=9999))
    assert (given.tokenizer, given.vocabulary) == (first.tokenizer, 400)


def report(config, results):
    prepared = prepare(config)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (prepared.tokenizer, prepared.tokens)]
    results.put((os.getpid(), prepared, digests))


def test_twenty_processes_at_once_prepare_the_same(config):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=report, args=(config, results)) for _ in range(20)]
    for child in children:
        child.start()
    reports = [results.get(timeout=30) for _ in children]
    for child in children:
        child.join(10)
        assert child.exitcode == 0
    assert len({process for process, *_ in reports}) == 20
    assert all(report[1:] == reports[0][1:] for report in reports)
    kinds = sorted(path.suffix for path in Path(config.cache).iterdir())
    assert kinds == [".bin", ".lock", ".lock", ".model"]


def die_while_writing(path):
    with written_once(path) as file:
        file.write(b"half")
        file.flush()
        os._exit(1)


def test_a_writer_that_dies_leaves_the_work_to_the_next(tmp_path):
    path = tmp_path / "file.bin"
    child = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(path,))
    child.start()
    child.join(10)
    assert not path.exists()
    with written_once(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"


def test_a_batch_is_a_function_of_seed_part_iteration_and_microbatch(positions):
    def batch(seed=1, part=0, iteration=2, microbatch=3):
        return Batches(positions, part, 3, 4, CONTEXT, seed).batch(iteration, microbatch)[0]

    reused = Batches(positions, 0, 3, 4, CONTEXT, 1)
    reused.batch(0, 0)
    assert torch.equal(reused.batch(2, 3)[0], batch())
    others = [batch(seed=2), batch(part=1), batch(iteration=3), batch(microbatch=2), batch(iteration=3, microbatch=2)]
    assert all(not torch.equal(other, batch()) for other in others)


def test_targets_are_the_tokens_that_follow(positions):
    tokens, targets = Batches(positions, 1, 3, 5, CONTEXT, 0).batch(0, 0)
    assert tokens.shape == targets.shape == (5, CONTEXT)
    assert tokens.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, tokens + 1)
    assert torch.equal(tokens[:, 1:], tokens[:, :-1] + 1)


def test_parts_are_disjoint_and_nothing_held_out_is_trained_on(positions):
    seen = []
    for part in range(7):
        batches = Batches(positions, part, 7, 64, CONTEXT, 0)
        pairs = [batches.batch(iteration, microbatch) for iteration in range(20) for microbatch in range(6)]
        seen.append({token for pair in pairs for half in pair for token in half.flatten().tolist()})
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert all(len(tokens) > 0.95 * TRAIN / 7 for tokens in seen)
    assert max(map(max, seen)) < TRAIN
    held_out = [half for pair in validation_batches(positions, 8, CONTEXT, 10**6) for half in pair]
    assert min(half.min().item() for half in held_out) == TRAIN


def test_a_part_of_one_sequence_is_enough(positions):
    few = dataclasses.replace(positions, train_tokens=2 * (CONTEXT + 1))
    tokens, _ = Batches(few, 1, 2, 3, CONTEXT, 0).batch(0, 0)
    assert tokens[:, 0].tolist() == [CONTEXT + 1] * 3
    with pytest.raises(UserError, match=r"each of 3 stage-0 nodes has 11 training tokens, fewer than one sequence"):
        Batches(few, 0, 3, 3, CONTEXT, 0)


def test_validation_batches_tile_the_held_out_tokens(positions):
    batches = list(validation_batches(positions, 4, CONTEXT, 10**6))
    sequences = torch.cat([tokens for tokens, _ in batches])
    assert torch.equal(sequences.flatten(), torch.arange(TRAIN, TRAIN + sequences.numel()))
    assert HELD_OUT - sequences.numel() <= CONTEXT
    assert [tokens.shape[0] for tokens, _ in validation_batches(positions, 4, CONTEXT, 3)] == [4, 4, 4]
    none = dataclasses.replace(positions, validation_tokens=CONTEXT)
    with pytest.raises(UserError, match=r"data\.validation_fraction: 16 tokens are held out"):
        next(validation_batches(none, 4, CONTEXT, 1))


def test_an_empty_corpus_is_named(tmp_path, config):
    (tmp_path / "blank.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.files: the corpus is empty"):
        prepare(dataclasses.replace(config, paths=(str(tmp_path / "blank.txt"),)))


@pytest.mark.parametrize("field", ["cache", "tokenizer"])
def test_a_home_that_nobody_has_is_named(config, field):
    with pytest.raises(UserError, match=rf"^data.{field}: '~nobody-by-this-name/x': there is no such home"):
        prepare(dataclasses.replace(config, **{field: "~nobody-by-this-name/x"}))


def test_a_cache_that_is_no_folder_is_named(tmp_path, config):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.cache: .*/file: can't be made"):
        prepare(dataclasses.replace(config, cache=str(tmp_path / "file")))
