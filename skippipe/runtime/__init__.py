"""The pipeline runtime, one process a node; it never imports skippipe.search."""
