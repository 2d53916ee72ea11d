"""The offline schedule search; it never imports skippipe.runtime."""
