"""The tokenizer keeps text as it is, and a user's wrong settings get a clear line."""

import pytest

from skippipe.data.tokenizer import load_tokenizer, train_tokenizer
from skippipe.errors import UserError


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
