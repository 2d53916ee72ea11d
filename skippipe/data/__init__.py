"""Text to batches: a corpus, its tokenizer, its token file, and each stage-0 node's part of it."""
