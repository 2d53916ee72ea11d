"""The LLaMA that the peers train: one stage's shard of layers to a process."""
