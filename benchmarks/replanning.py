"""A node is lost for good: what the heirs' steps take, and those of the plan that is found for the others meanwhile.

    python -m benchmarks.replanning [--losses 5] [--seconds 10] [--offline 60]

Node after node of the shipped ca-partial and joint plans is lost, drawn at random, and what runtime/replanner.py would
start is run. The offline plan is of the same search with more time: the paper's own needs stages of other sizes.
Steps are simulated, searches real, on cores that nobody else uses. Each loss is kept beside the results file, so a
call that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import random
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import whole_runs
from benchmarks.kept import FAILED, Kept
from skippipe.config import CONFIGS
from skippipe.fields import build
from skippipe.schedule import Plan, Schedule
from skippipe.schedule.subset import schedule_of
from skippipe.search.config import SearchConfig
from skippipe.search.replanning import replan
from skippipe.search.warm_up import warm_up
from skippipe.survival.following import donors_of
from skippipe.survival.succession import plan_of_the_living, plan_of_what_follows

SCHEDULE = CONFIGS / "schedules" / "original-20-nodes-and-joint.json"
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


def one_loss(schedule: Schedule, setting: str, node: int, seconds: float, offline: float) -> dict[str, Any]:
    """What is lost with a node, and what searches find."""
    plan = schedule.plan(setting)
    left = heirs(schedule, plan, node)
    alone = schedule_of(schedule, left.stage_of(), "heirs", left)
    found = replan(alone, seconds, CHAINS)
    return {
        "before": plan.expected_step_s,
        "heirs": left.expected_step_s,
        "found": found.expected_step_s,
        "moving": len(donors_of(alone.plan("heirs"), found)[0]),
        "offline": replan(alone, offline, CHAINS).expected_step_s,
    }


def report(kept: Kept, head: list[str]) -> list[str]:
    """The results file, of what is kept so far."""
    lines, ratios = list(head), []
    for key, outcome in kept.outcomes.items():
        setting, node = key.split()
        if FAILED in outcome:
            lines.append(f"| {setting} | {node} | failed: {outcome[FAILED]} |{' |' * 5}")
            continue
        ratios.append(outcome["found"] / outcome["offline"])
        steps = f"{outcome['before']:.2f} | {outcome['heirs']:.2f} | {outcome['found']:.2f} | {outcome['moving']}"
        lines.append(f"| {setting} | {node} | {steps} | {outcome['offline']:.2f} | {ratios[-1]:.2f} |")
    if ratios:
        met = "met" if statistics.median(ratios) <= REACH else "**not met**"
        lines += ["", f"Over the offline plan: median {statistics.median(ratios):.3f}, most {max(ratios):.3f}; asked"]
        lines[-1] += f" {REACH}: {met}."
    return lines


def main() -> None:
    """Measure, and write the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", type=int, default=5, help="nodes of each setting")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--offline", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/replanning.md"))
    options = parser.parse_args()
    sizes = f"--seconds {options.seconds:g} --offline {options.offline:g} --seed {options.seed}"
    kept = Kept(options.out.with_suffix(".jsonl"), f"python -m benchmarks.replanning {sizes}")
    head = whole_runs.header("A node is lost for good", f"{kept.command} --losses {options.losses}")
    head += [COLUMNS.format(seconds=options.seconds, offline=options.offline), "|---" * 8 + "|"]
    schedule = Schedule.load(SCHEDULE)
    warm_up(build(SearchConfig, {"settings": SETTINGS}, "warm-up"))
    draw = random.Random(options.seed)
    losses = [(setting, node) for setting in SETTINGS for node in draw.sample(range(schedule.nodes), schedule.nodes)]
    # The first ones of each setting, however many are asked for.
    wanted = [loss for place, loss in enumerate(losses) if place % schedule.nodes < options.losses]
    for setting, node in tqdm(wanted, unit="loss"):
        times = options.seconds, options.offline
        kept.once(f"{setting} {node}", partial(one_loss, schedule, setting, node, *times))
        options.out.write_text("\n".join(report(kept, head)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
