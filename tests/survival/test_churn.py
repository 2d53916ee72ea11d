"""Whoever comes back is soon at work again, however often others die."""

from __future__ import annotations

from tests.survival.churn import Churn

NODES, RATE, ITERATIONS = 8, 0.1, 12


def test_nobody_is_kept_waiting_by_the_deaths_of_others() -> None:
    churns = [Churn(seed, NODES, RATE) for seed in range(2)]
    for churn in churns:
        churn.train(ITERATIONS)
    deaths = sum(churn.counts["killed"] for churn in churns)
    assert deaths >= NODES
    assert sum(churn.counts["left out"] for churn in churns) == 0
    # The one that it died in it is done without, and most come back for the next.
    away = sum((1 - churn.at_work()) * NODES * ITERATIONS for churn in churns)
    assert away <= 1.7 * deaths
