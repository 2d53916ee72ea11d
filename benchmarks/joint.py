"""Reach of the joint search: every instance of benchmarks/results/joint.md, its seeds, and the ablation.

    python benchmarks/joint.py [--rows NAME ..] [--seeds N] [--seconds S] [--ablation] [--robust]

Every plan is validated, and its expected times are the simulation's, before its numbers are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace

import numpy as np
from joint_rows import ROWS, Row, original

from skippipe.schedule import Costs, Plan
from skippipe.schedule.plan import timed
from skippipe.search.bounds import bounds_of_given_stages
from skippipe.search.joint import chain, moves
from skippipe.search.joint.solver import JointOptions, search_joint
from skippipe.search.joint.state import link_scenarios
from skippipe.search.origin_bounds import closer_bounds_of_any_stages


def objective(plan: Plan, sync: bool) -> float:
    """What the row minimises, in seconds."""
    return plan.expected_step_s if sync else plan.expected_iteration_s


def solve(row: Row, options: JointOptions) -> Plan:
    """One search, validated."""
    instance, warm_start, _ = row
    plan = search_joint(instance, warm_start, options)
    instance.schedule({"joint": plan}).validate()
    return plan


def measure(name: str, seeds: int, seconds: float) -> None:
    """One line of the reach table; spread and bounds are of the single searches, the rest medians."""
    starts, values, simulations, gaps, busy = [], [], [], [], []
    for seed in range(seeds):
        row = ROWS[name](seed)
        instance, warm_start, sync = row
        began, busy_before = time.monotonic(), time.process_time()
        plan = solve(row, JointOptions(seconds, seed=seed, sync=sync))
        busy.append((time.process_time() - busy_before) / (time.monotonic() - began))
        starts.append(objective(warm_start, sync))
        values.append(objective(plan, sync))
        bounds = closer_bounds_of_any_stages(instance, plan)[sync], bounds_of_given_stages(instance, plan)[sync]
        gaps.append([values[-1] / bound - 1 for bound in bounds])
        simulations.append(plan.search["simulations"])
        print(f"{name}, seed {seed}: {starts[-1]:.2f} to {values[-1]:.2f} s", file=sys.stderr, flush=True)
    start, middle = statistics.median(starts), statistics.median(values)
    any_stages, own_stages = (statistics.median(gap[i] for gap in gaps) for i in range(2))
    print(
        f"| {name} | {start:.2f} | {middle:.2f} | {min(values):.2f} to {max(values):.2f} | {1 - middle / start:.1%} |"
        f" {any_stages:.0%} | {own_stages:.0%} | {statistics.median(simulations) / 1e6:.1f} M |"
        f" {statistics.median(busy):.2f} |",
        flush=True,
    )


def ablation(seeds: int, iterations: int) -> None:
    """What is lost without one idea, at equal numbers of proposals, so that load on the machine does not matter."""
    without = {
        "everything": (),
        "no order moves": (moves.ORDER,),
        "no exchange of nodes' stages and roles": (moves.NODES,),
        "no uneven loads (no moved visits)": (moves.RELOCATE,),
        "no exchanged visits and parts of paths": (moves.EXCHANGE, moves.CROSS),
        "no reordered paths": (moves.REORDER,),
        "no focus on the critical path": (),
    }
    for sync in (True, False):
        row = original(sync, corrected=sync)
        for name, kinds in without.items():
            parts = tuple(0.0 if kind in kinds else part for kind, part in enumerate(chain.MOVE_PARTS))
            options = JointOptions(
                1e6, iterations, sync=sync, move_parts=parts, focus=0.0 if "focus" in name else chain.FOCUS
            )
            values = [objective(solve(row, replace(options, seed=seed)), sync) for seed in range(seeds)]
            print(f"| {'step' if sync else 'iteration'} | {name} | {statistics.median(values):.2f} |", flush=True)


def mean_step_under_drift(plan: Plan, costs: Costs, error: float, count: int, seed: int) -> tuple[float, float]:
    """Mean and largest expected step in seconds of a plan whose orders are followed in `count` sampled networks."""
    steps = []
    for hop_s in link_scenarios(costs.hop_s, error, count, seed)[1:]:
        drifted = replace(costs, hop_s=hop_s)
        steps.append(timed(plan, drifted, plan.starts(drifted)).expected_step_s)
    return float(np.mean(steps)), float(np.max(steps))


def robustness(seconds: float) -> None:
    """The price of preparing for drifting links, and what it buys."""
    row = original(sync=True, corrected=True)
    for error in (0.0, 0.1, 0.3):
        plan = solve(row, JointOptions(seconds, seed=0, robust=error))
        means = [mean_step_under_drift(plan, row[0].costs, drift, 200, 99) for drift in (0.1, 0.3)]
        cells = " | ".join(f"{mean:.2f} | {worst:.2f}" for mean, worst in means)
        print(f"| {error} | {plan.expected_step_s:.2f} | {cells} |", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--iterations", type=int, default=1_000_000, help="proposals of each chain in the ablation")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--robust", action="store_true")
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f}", flush=True)
    if arguments.ablation:
        ablation(arguments.seeds, arguments.iterations)
    elif arguments.robust:
        robustness(arguments.seconds)
    else:
        for name in arguments.rows:
            measure(name, arguments.seeds, arguments.seconds)


if __name__ == "__main__":
    main()
