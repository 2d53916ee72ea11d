"""Machine code of older sources is not used again."""

from __future__ import annotations

from pathlib import Path

from skippipe.search.compiled import forget_stale_kernels


def test_kernels_are_forgotten_once_a_source_has_changed(tmp_path: Path) -> None:
    source, cache = tmp_path / "moves.py", tmp_path / "search" / "__pycache__"
    source.write_text("x = 1\n")
    cache.mkdir(parents=True)
    forget_stale_kernels(tmp_path)
    for name in ("moves.nbi", "moves.1.nbc"):
        (cache / name).write_bytes(b"code")
    forget_stale_kernels(tmp_path)
    assert len(list(cache.glob("*.nb?"))) == 2
    source.write_text("x = 2\n")
    forget_stale_kernels(tmp_path)
    assert not list(cache.glob("*.nb?"))
