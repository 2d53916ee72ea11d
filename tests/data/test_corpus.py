"""Which documents a corpus has, in which order, and the line a user gets where it has none."""

import pytest

from skippipe.config import DataConfig
from skippipe.data.corpus import Corpus
from skippipe.errors import UserError


def files(*paths):
    return Corpus(DataConfig(source="files", paths=tuple(map(str, paths))))


def test_folders_files_and_patterns_name_the_same_documents(tmp_path, texts):
    folder = tmp_path / "corpus"
    by_folder = list(files(folder).documents())
    assert sorted(by_folder) == sorted(texts)
    assert list(files(folder / "*.txt").documents()) == by_folder
    assert list(files(*reversed(sorted(folder.iterdir()))).documents()) == by_folder


def test_order_and_fingerprint_depend_on_contents_alone(tmp_path, texts):
    before = files(tmp_path / "corpus")
    order = list(before.documents())
    (tmp_path / "corpus" / "0.txt").rename(tmp_path / "corpus" / "z.txt")
    renamed = files(tmp_path / "corpus")
    assert (renamed.fingerprint, list(renamed.documents())) == (before.fingerprint, order)
    (tmp_path / "corpus" / "1.txt").write_text("other", encoding="utf-8")
    assert files(tmp_path / "corpus").fingerprint != before.fingerprint


def test_copies_hidden_files_and_what_is_not_text_are_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("text\n", encoding="utf-8")
    (tmp_path / "copy.txt").write_text("text\n", encoding="utf-8")
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "image.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("hidden", encoding="utf-8")
    assert list(files(tmp_path).documents()) == ["text\n"]


def test_the_standard_library_is_there_without_installed_packages():
    corpus = Corpus(DataConfig())
    assert sum(path.stat().st_size for path in corpus.files) > 5_000_000
    assert any(path.name == "argparse.py" for path in corpus.files)
    assert not any({"site-packages", "dist-packages"} & set(path.parts) for path in corpus.files)


def test_missing_paths_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.paths: '.*/nowhere' matches nothing"):
        files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"data\.paths: '.*/empty' holds no file"):
        files(tmp_path / "empty")
