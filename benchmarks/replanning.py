"""A node is lost for good: what the heirs' steps take, and those of the plan that is found for the others meanwhile.

    python benchmarks/replanning.py [--losses 6] [--seconds 10] [--offline 60] [--out benchmarks/results/replanning.md]

Node after node of the shipped ca-partial and joint plans is lost, drawn at random, and what runtime/replanner.py would
start is run. The offline plan is of the same search with more time: the paper's own needs stages of other sizes.
Steps are simulated, searches real.
"""

from __future__ import annotations

import argparse
import random
import statistics
from pathlib import Path

import whole_runs
from instances import ROOT

from skippipe.fields import build
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.subset import schedule_of
from skippipe.search.config import SearchConfig
from skippipe.search.replanning import replan
from skippipe.search.warm_up import warm_up
from skippipe.survival.following import donors_of
from skippipe.survival.succession import plan_of_the_living, plan_of_what_follows

SCHEDULE = ROOT / "configs" / "schedules" / "original-20-nodes-and-joint.json"
SETTINGS = ("ca-partial", "joint")
CHAINS = 2
REACH = 1.05
COLUMNS = (
    "| setting | node | before | heirs | found in {seconds:g} s | nodes that move | offline, {offline:g} s | over it |"
)


def heirs(schedule: Schedule, plan: Plan, node: int) -> Plan:
    """The plan of the iterations after a node is lost."""
    moved = schedule.pipeline.sync_bytes
    left = plan_of_the_living(plan, {node}, schedule.costs, schedule.bandwidth_gib_s, moved)
    return plan_of_what_follows(left, schedule.costs, schedule.pipeline.memory)


def main() -> None:
    """Measure, and write the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", type=int, default=6, help="nodes of each setting")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--offline", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/replanning.md"))
    options = parser.parse_args()
    warm_up(build(SearchConfig, {"settings": SETTINGS}, "warm-up"))
    schedule = Schedule.load(SCHEDULE)
    command = f"python benchmarks/replanning.py --losses {options.losses} --seconds {options.seconds:g}"
    lines = whole_runs.header("A node is lost for good", f"{command} --offline {options.offline:g}")
    lines += [COLUMNS.format(seconds=options.seconds, offline=options.offline), "|---" * 8 + "|"]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw, ratios = random.Random(options.seed), []
    for setting in SETTINGS:
        plan = schedule.plan(setting)
        for node in draw.sample(range(schedule.nodes), options.losses):
            left = heirs(schedule, plan, node)
            alone = schedule_of(schedule, left.stage_of(), "heirs", left)
            found = replan(alone, options.seconds, CHAINS)
            best = replan(alone, options.offline, CHAINS).expected_step_s
            moving = len(donors_of(alone.plan("heirs"), found)[0])
            ratios.append(found.expected_step_s / best)
            lines.append(
                f"| {setting} | {node} | {plan.expected_step_s:.2f} | {left.expected_step_s:.2f} |"
                f" {found.expected_step_s:.2f} | {moving} | {best:.2f} | {ratios[-1]:.2f} |"
            )
            print(lines[-1], flush=True)
            options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines += ["", f"Over the offline plan: median {statistics.median(ratios):.3f}, asked {REACH}."]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
