"""Small corpora on disk for the data tests."""

import json
import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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


def write_dataset(folder, files=3, documents=40, words=30):
    """A folder that `datasets` takes for a dataset; the documents of each of its files, all of them different."""
    generator = random.Random(7)
    vocabulary = ["".join(generator.choices("abcdefghij", k=generator.randint(2, 9))) for _ in range(200)]
    folder.mkdir()
    texts = []
    for file in range(files):
        own = [
            f"{file}-{row} " + " ".join(generator.choices(vocabulary, k=generator.randint(1, 2 * words)))
            for row in range(documents)
        ]
        lines = [json.dumps({"text": text, "number": row}) + "\n" for row, text in enumerate(own)]
        (folder / f"part-{file}.jsonl").write_text("".join(lines))
        texts.append(own)
    return texts


def write_pretrained(folder, texts, vocabulary=400):
    """A folder with a tokenizer as transformers keeps it, of another kind than sentencepiece's; the tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|start|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    # As many a published one has them, for the task it was made for.
    tokenizer.enable_truncation(12)
    tokenizer.enable_padding(length=12, pad_id=1, pad_token="<|end|>")
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1])
    whole.save_pretrained(folder)
    return whole


@pytest.fixture
def texts(tmp_path):
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def config(tmp_path, texts):
    return DataConfig(source="files", paths=(str(tmp_path / "corpus"),), vocabulary=400, cache=str(tmp_path / "cache"))
