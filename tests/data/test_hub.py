"""A dataset's texts are streamed from any row on; what can't be had is named; what it is told apart by."""

from __future__ import annotations

import dataclasses
import json

import pyarrow
import pyarrow.parquet
import pytest

from skippipe.config import DataConfig
from skippipe.data.hub import REVISION, HubText
from skippipe.errors import UserError
from tests.data.conftest import write_dataset


def test_every_row_of_every_file_is_read_from_any_on(tmp_path):
    texts = write_dataset(tmp_path / "set", files=3, documents=200)
    text = HubText.find(DataConfig(source="hub", hub=str(tmp_path / "set")))
    assert (text.files, text.revision) == (3, None)
    assert list(text.documents()) == [document for file in texts for document in file]
    for file, row, step in ((0, 0, 1), (1, 64, 1), (2, 65, 3), (2, 199, 7), (1, 200, 1), (1, 5000, 2)):
        expected = [(at, texts[file][at]) for at in range(row, 200, step)]
        assert list(text.texts(file, row, step)) == expected


def test_rows_without_a_text_keep_their_numbers(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": " "}\n{"text": null}\n{"text": "b"}\n')
    text = HubText.find(DataConfig(source="hub", hub=str(tmp_path)))
    assert list(text.texts(0)) == [(0, "a"), (3, "b")]
    assert list(text.texts(0, 1, 2)) == [(3, "b")]


def test_other_formats_columns_and_splits_are_read(tmp_path):
    for split in ("train", "validation"):
        table = pyarrow.table({"body": [f"{split} {row}" for row in range(5)], "number": list(range(5))})
        pyarrow.parquet.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet", row_group_size=2)
    config = DataConfig(source="hub", hub=str(tmp_path), hub_field="body", hub_split="validation")
    assert list(HubText.find(config).documents()) == [f"validation {row}" for row in range(5)]


def test_files_are_not_read_before_they_are_due(tmp_path):
    write_dataset(tmp_path / "set", files=3, documents=5)
    (tmp_path / "set" / "part-2.jsonl").write_text("this is not JSON\n")
    text = HubText.find(DataConfig(source="hub", hub=str(tmp_path / "set")))
    assert len(list(text.texts(0))) == len(list(text.texts(1))) == 5
    with pytest.raises(UserError, match=r"data\.hub .*can't be streamed"):
        list(text.texts(2))


def test_what_cannot_be_had_is_named(tmp_path):
    write_dataset(tmp_path / "set", files=1, documents=5)
    config = DataConfig(source="hub", hub=str(tmp_path / "set"))
    missing = HubText.find(dataclasses.replace(config, hub_field="body"))
    with pytest.raises(UserError, match=r"data\.hub .*no text in data\.hub_field 'body'; columns: text, number"):
        list(missing.documents())
    numbers = HubText.find(dataclasses.replace(config, hub_field="number"))
    with pytest.raises(UserError, match=r"no text in data\.hub_field 'number'"):
        list(numbers.documents())
    with pytest.raises(UserError, match=r"data\.hub .*split other\): can't be streamed"):
        HubText.find(dataclasses.replace(config, hub_split="other"))
    with pytest.raises(UserError, match=r"data\.hub .*nowhere .*can't be streamed"):
        HubText.find(dataclasses.replace(config, hub=str(tmp_path / "nowhere")))


def test_a_copy_is_the_same_text_and_one_with_another_file_is_not(tmp_path):
    for name in ("one", "two"):
        write_dataset(tmp_path / name, files=2, documents=5)

    def fingerprint(name, **fields):
        return HubText.find(DataConfig(source="hub", hub=str(tmp_path / name), **fields)).fingerprint

    before = fingerprint("one")
    assert fingerprint("two") == before
    assert fingerprint("one", hub_field="number") != before
    with (tmp_path / "two" / "part-1.jsonl").open("a") as file:
        file.write(json.dumps({"text": "more", "number": 1}) + "\n")
    assert fingerprint("two") != before
    (tmp_path / "one" / "part-1.jsonl").rename(tmp_path / "one" / "part-2.jsonl")
    assert fingerprint("one") != before


def test_the_commit_is_in_the_address_of_a_file_on_the_hub():
    commit = "0123456789abcdef" * 2 + "01234567"
    match = REVISION.search(f"hf://datasets/someone/texts@{commit}/data/train-00000-of-00001.parquet")
    assert match is not None
    assert match[1] == commit
    assert REVISION.search("/home/someone@work/texts/train.parquet") is None
