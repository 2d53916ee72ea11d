"""How many tokens a model has to tell apart, before its data are prepared."""

from __future__ import annotations

from skippipe.config import DataConfig
from skippipe.fields import user_path


def vocabulary_of(config: DataConfig) -> int:
    """Those of the given tokenizer, or as many as one is trained for."""
    if config.tokenizer is None:
        return config.vocabulary
    from skippipe.data.tokenizer import load_tokenizer

    return int(load_tokenizer(user_path(config.tokenizer, "data.tokenizer")).vocab_size)
