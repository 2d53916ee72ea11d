"""What if a link gets slower? The shipped schedule's plans, simulated again with one pair of locations slowed down.

python examples/what_if.py [LOCATION LOCATION FACTOR]
"""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

import skippipe


def slowed(schedule: skippipe.Schedule, a: str, b: str, factor: float) -> skippipe.Schedule:
    """The same plans and orders once every hop between two locations takes `factor` times as long."""
    locations = np.array(schedule.locations)
    between = np.outer(locations == a, locations == b)
    hop_s = np.where(between | between.T, schedule.costs.hop_s * factor, schedule.costs.hop_s)
    return schedule.with_costs(dataclasses.replace(schedule.costs, hop_s=hop_s))


def main(a: str, b: str, factor: float) -> None:
    """Print every setting's step before and after."""
    schedule = skippipe.Schedule.load("original-20-nodes-and-joint")
    changed = slowed(schedule, a, b, factor)
    print(f"hops between {a} and {b} take {factor:g} times as long; seconds of a step:")
    for setting, plan in schedule.settings.items():
        after = changed.plan(setting).expected_step_s
        print(f"{setting:15} {plan.expected_step_s:6.2f} before, {after:6.2f} after")


if __name__ == "__main__":
    first, second, times = sys.argv[1:] or ("Iowa", "Japan", "3")
    main(first, second, float(times))
