"""The tokenizer keeps text as it is, and a user's wrong settings get a clear line."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from skippipe.cli.vocabulary import vocabulary_of
from skippipe.data.batches import prepare
from skippipe.data.tokenizer import load_tokenizer, train_tokenizer
from skippipe.errors import UserError
from tests.data.conftest import write_pretrained


def test_text_comes_back_as_it_was(tmp_path, texts):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_tokenizer(texts, len(texts), 400))
    tokenizer = load_tokenizer(path)
    assert tokenizer.vocab_size == 400
    for text in (*texts, " def f(x):\n\n\treturn  x \n", "ünïcode ☃ and \r\n tabs\t\t", "  "):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(texts[0])) < len(texts[0]) / 1.5


def test_training_is_deterministic_and_quiet(texts, capfd):
    assert train_tokenizer(texts, len(texts), 400) == train_tokenizer(texts, len(texts), 400)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (50_000, r"data\.vocabulary: 50000 is too large for the corpus; use at most \d+"),
        (100, r"data\.vocabulary: 100 is too small: .* take \d+"),
    ],
)
def test_a_vocabulary_that_does_not_fit_the_corpus_is_refused(texts, vocabulary, message):
    with pytest.raises(UserError, match=message):
        train_tokenizer(texts[:1], 1, vocabulary)


def test_a_wrong_model_file_is_refused(tmp_path, capfd):
    wrong = tmp_path / "wrong.model"
    wrong.write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"data\.tokenizer: .*wrong\.model: not a sentencepiece"):
        load_tokenizer(wrong)
    with pytest.raises(UserError, match=r"data\.tokenizer: .*missing\.model: no such file"):
        load_tokenizer(tmp_path / "missing.model")
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_transformers_is_a_tokenizer(tmp_path, config, texts):
    theirs = write_pretrained(tmp_path / "theirs", texts)
    given = dataclasses.replace(config, tokenizer=str(tmp_path / "theirs"))
    prepared = prepare(given)
    assert prepared.vocabulary == vocabulary_of(given) == 400
    ours = load_tokenizer(prepared.tokenizer)
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id) == (0, 1)
    # Longer than what the folder says to cut texts to, and with what stands for the end of a document as text.
    for text in (*texts, " def f(x):\n\n\treturn  x \n", "ünïcode ☃", "no <|end|> here"):
        assert ours.decode(ours.encode(text)) == text
        assert ours.eos_id not in ours.encode(text)
    theirs.backend_tokenizer.no_truncation()
    theirs.backend_tokenizer.no_padding()
    assert ours.encode(texts[0]) == theirs.encode(texts[0], add_special_tokens=False)
    assert ours.encode_all(texts) == [ours.encode(text) for text in texts]
    tokens = prepared.map_tokens().tolist()
    assert tokens.count(ours.eos_id) == len(texts)
    # Whatever becomes of the folder, the cache has it; its own folder is one that transformers read, and a tokenizer.
    shutil.rmtree(tmp_path / "theirs")
    again = prepare(dataclasses.replace(config, tokenizer=str(prepared.tokenizer)))
    assert (again.tokenizer, again.tokens) == (prepared.tokenizer, prepared.tokens)


def test_a_tokenizer_comes_from_the_hub_by_its_name(tmp_path, texts):
    # As the hub's library keeps what it has fetched.
    hub = tmp_path / "hf" / "hub" / "models--someone--tokens"
    write_pretrained(hub / "snapshots" / ("a" * 40), texts)
    (hub / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("a" * 40)
    program = (
        "import sys\n"
        "from skippipe.cli.vocabulary import vocabulary_of\n"
        "from skippipe.config import DataConfig\n"
        "print(vocabulary_of(DataConfig(tokenizer=sys.argv[1])))\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    for name, expected in (("someone/tokens", "400\n"), ("someone/else", "")):
        command = [sys.executable, "-c", program, name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == expected, done.stderr
    assert "data.tokenizer: 'someone/else': neither a file nor a folder, and not to be had from the hub" in done.stderr


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("none.txt", "", r"data\.tokenizer: .*theirs.*: no tokenizer of transformers"),
        ("tokenizer.json", "{}", r"data\.tokenizer: .*theirs.*: no tokenizer of transformers"),
    ],
)
def test_a_folder_without_a_tokenizer_is_refused(tmp_path, config, monkeypatch, file, text, message):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / file).write_text(text)
    with pytest.raises(UserError, match=message):
        prepare(dataclasses.replace(config, tokenizer=str(tmp_path / "theirs")))


@pytest.mark.parametrize("name", ["nowhere/missing.model", "/nowhere/at/all", "./nowhere", "a/b/c", "~/nowhere"])
def test_what_is_no_name_on_the_hub_is_not_asked_for_there(config, name):
    with pytest.raises(UserError, match=r"data\.tokenizer: .*: no such file"):
        prepare(dataclasses.replace(config, tokenizer=name))


def test_a_tokenizer_that_was_saved_and_is_broken_is_refused(tmp_path, config, texts):
    write_pretrained(tmp_path / "theirs", texts)
    folder = prepare(dataclasses.replace(config, tokenizer=str(tmp_path / "theirs"))).tokenizer
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "no token of it"}))
    with pytest.raises(UserError, match="no token 'no token of it'"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(folder)
