"""What holds for all tests: random inputs are tried without a time limit, since a busy machine is no mistake."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
