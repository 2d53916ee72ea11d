"""Restarts on several cores: the same annealing again and again, in ever longer generations, the best of all kept."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from numpy.random import Generator

from skippipe.search.config import SearchConfig
from skippipe.search.progress import Phase, Progress

Solution = TypeVar("Solution")
REPEATABLE_CHAINS = 2
"""Chains of a search that steps alone end: the same on every machine, so that its result is."""
GROWTH = 2
"""How many times as many steps a generation takes as the one before."""


def chains_of(config: SearchConfig) -> int:
    """Annealings that run side by side: those asked for, or one a core, but two if the result has to repeat."""
    if config.chains is not None:
        return config.chains
    return REPEATABLE_CHAINS if config.time_budget_s is None else len(os.sched_getaffinity(0))


def best_of_restarts(
    anneal: Callable[[Solution | None, int, Generator, Phase], Solution],
    value_s: Callable[[Solution], float],
    first_steps: int,
    most_steps: int,
    seconds: float,
    chains: int,
    rng: Generator,
    progress: Progress,
    name: str,
) -> Solution:
    """The best solution of generations of `chains` annealings, of first_steps steps, then of twice as many, and so on.

    They end when each chain has done most_steps in all, or when the time is over.

    anneal(best so far, number of the restart, generator, phase) runs without Python's lock where it is compiled. With
    infinitely many seconds the solution is a function of the generator alone.
    """
    began, best, best_s = time.monotonic(), None, math.inf
    number, steps, steps_left = 0, first_steps, most_steps
    with ThreadPoolExecutor(chains) as pool:
        while best is None or steps_left > 0:
            left = seconds - (time.monotonic() - began)
            if best is not None and (left <= 0 or progress.stopped):
                break
            steps = min(steps, steps_left)
            with progress.phase(name, steps, left) as shown:
                phases = [progress.quiet_phase(steps, left) for _ in range(chains)]
                futures = [
                    pool.submit(anneal, best, number + chain, generator, phase)
                    for chain, (generator, phase) in enumerate(zip(rng.spawn(chains), phases, strict=True))
                ]
                while wait(futures, timeout=0.1).not_done:
                    shown.advance(min(phase.done for phase in phases) - shown.done, best_s)
                for future in futures:
                    solution = future.result()
                    if best is None or value_s(solution) < best_s:
                        best, best_s = solution, value_s(solution)
                shown.advance(min(phase.done for phase in phases) - shown.done, best_s)
            number += chains
            steps_left -= steps
            steps *= GROWTH
    return best
