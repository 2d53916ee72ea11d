"""The pairs that links are compared by really move bytes, in turns of messages and of round trips."""

from __future__ import annotations

import os

from tests.benchmarks.conftest import LoadScript


def test_pairs_move_messages_and_answer_in_turns(load_script: LoadScript) -> None:
    pairs = load_script("link_pairs")
    cores = os.sched_getaffinity(0)
    links, streams = pairs.LinkPair(authenticate=True), pairs.StreamPair()
    try:
        for _ in range(2):
            assert links.goodput(1 << 16, 3) > 0
            assert links.round_trip(5) > 0
            assert streams.round_trip(5) > 0
    finally:
        links.close()
        streams.close()
    assert os.sched_getaffinity(0) == cores
