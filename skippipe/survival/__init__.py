"""What keeps a run going when nodes die: the agreement on views."""
