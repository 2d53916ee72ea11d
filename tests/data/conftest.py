"""Small corpora on disk for the data tests."""

import random

import pytest

from skippipe.config import DataConfig


def write_corpus(folder, files=8, lines=60):
    """Files of indented pseudo-code made of a few hundred random words; returns their texts."""
    generator = random.Random(5)
    words = ["".join(generator.choices("abcdefghij", k=generator.randint(2, 9))) for _ in range(400)]
    texts = []
    for number in range(files):
        text = "".join(
            " " * 4 * generator.randint(0, 3) + " ".join(generator.choices(words, k=8)) + "\n" for _ in range(lines)
        )
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
        texts.append(text)
    return texts


@pytest.fixture
def texts(tmp_path):
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def config(tmp_path, texts):
    return DataConfig(source="files", paths=(str(tmp_path / "corpus"),), vocabulary=400, cache=str(tmp_path / "cache"))
