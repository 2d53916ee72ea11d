"""How many tokens a model has to tell apart, before its data are prepared."""

from __future__ import annotations

from skippipe.config import DataConfig


def vocabulary_of(config: DataConfig) -> int:
    """Those of the given tokenizer, or as many as one is trained for."""
    if config.tokenizer is None:
        return config.vocabulary
    from skippipe.data.tokenizer import open_tokenizer

    return open_tokenizer(config.tokenizer).vocab_size
