"""Iteration time: the paper's setups by its own method and by ours, over seeds; the shipped schedule measured.

What is measured is kept in results/iteration-time-*.json: a command for some setups or methods replaces theirs and
writes the results file from all that is there, `--methods` without any only that file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import common
import numpy
from iteration_report import ORIGINAL, PARTIAL, SETTINGS, report
from kept import Kept, Runs, Searches
from searching import add_budget, budget_of, searched
from setups import SETUPS, Setup

from skippipe.schedule import Schedule
from skippipe.schedule.simulate import iteration_seconds, simulate_first_come_first_served, step_with_sync_seconds
from skippipe.search.constraints import stage_table
from skippipe.search.problem import Instance
from skippipe.search.rounds import SHUFFLES_A_PATH, iteration_s, shuffle, start_paths

SETTINGS_OF = {
    "baselines": ("baseline", "random"),
    "paper": SETTINGS,
    "annealed": PARTIAL,
    "ours": (*PARTIAL, "joint"),
}
"""What each method searches. baselines: after all of GCMA's trials, however long they take; paper: everything by the
paper's method; annealed: paths annealed on GCMA's stages; ours: stages too."""
MEASURED = ("measured_iteration_s", "expected_iteration_s", "measured_step_s", "expected_step_s")
"""What is kept of a run's summary."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this experiment takes besides the scale."""
    names = [setup.name for setup in SETUPS]
    add_budget(parser)
    parser.add_argument("--seeds", type=int, help="searches of each setup and method (default: 3 quick, 5 full)")
    parser.add_argument("--setups", nargs="+", choices=names, default=names, help="these alone (default: all)")
    parser.add_argument("--methods", nargs="*", choices=SETTINGS_OF, default=list(SETTINGS_OF), help="these alone")
    parser.add_argument("--no-run", action="store_true", help="leave the measurement with run.sh out")


def experiment() -> None:
    """Search what is asked for, measure the shipped schedule, write the results from all that is kept."""
    arguments = common.parse_arguments(__doc__, add_arguments)
    scale = "quick" if arguments.quick else "full"
    budget, seeds = budget_of(arguments), arguments.seeds or (3 if arguments.quick else 5)
    name, by = f"iteration-time-{scale}", common.measured_now(time.time())
    file = arguments.results / f"{name}.json"
    kept = Kept.load(file)
    for setup in SETUPS:
        for method in arguments.methods:
            if setup.name in arguments.setups and (setup.rest_of is None or method == "baselines"):
                kept.searches[setup.name, method] = search_setup(setup, method, budget, seeds, by)
                kept.save(file)
    if not arguments.no_run:
        kept.runs = Runs(by, [measure(setting, scale) for setting in SETTINGS])
        kept.save(file)
    report(common.Results(name, f"Iteration time, {scale} scale", arguments.results, kept.measured), kept)


def search_setup(setup: Setup, method: str, budget: str, seeds: int, by: str) -> Searches:
    """What a method's searches of a setup give."""
    names = SETTINGS_OF[method]
    flags = (*setup.flags, "--time-budget-s", "null" if method == "baselines" else budget)
    flags = (*flags, "--method", "paper" if method == "paper" else "ours", "--settings", ",".join(names))
    schedules = [searched(*flags, "--seed", str(seed), on_gcma=method == "annealed") for seed in range(seeds)]
    times = [times_of(schedule, setup.microbatches) for schedule in schedules]
    records = [schedule.plan(names[0]).search for schedule in schedules]
    iterations, steps = ({name: [round(each[name][i], 6) for each in times] for name in names} for i in range(2))
    if method == "baselines":
        evenly = enumerate(schedules)
        iterations["random, evenly"] = [round(random_evenly_s(schedule, seed), 6) for seed, schedule in evenly]
    aware = set(names) & set(PARTIAL)
    lost = {name: [round(lost_to_others(schedule, name), 6) for schedule in schedules] for name in sorted(aware)}
    trials = [record["trials"] for record in records if "trials" in record]
    return Searches(setup.name, method, by, iterations, steps, lost, trials)


def times_of(schedule: Schedule, microbatches: int | None) -> dict[str, tuple[float, float]]:
    """Iteration and step of each setting in seconds; of DT-FM* with so many microbatches, if a number is given."""
    times = {name: (plan.expected_iteration_s, plan.expected_step_s) for name, plan in schedule.settings.items()}
    if microbatches is not None:
        plan, costs = schedule.plan("baseline"), schedule.costs
        each = microbatches // len(plan.sends)
        paths = numpy.concatenate([plan.paths_array[plan.paths_array[:, 0] == node][:each] for node in plan.sends])
        assert len(paths) == microbatches
        starts = simulate_first_come_first_served(paths, costs, schedule.pipeline.memory)
        step_s = step_with_sync_seconds(paths, costs, starts, [list(s) for s in plan.stages], list(plan.sync_s))
        times["baseline"] = iteration_seconds(paths, costs, starts), step_s
    return times


def random_evenly_s(schedule: Schedule, seed: int) -> float:
    """Iteration in seconds of the draw of `random`, but that every node of a stage is visited equally often."""
    instance, rng = Instance.from_schedule(schedule, "random"), numpy.random.default_rng(seed)
    paths = start_paths(instance, instance.pipeline.memory, rng)
    shuffle(paths, stage_table(instance.fixed_stages), SHUFFLES_A_PATH * len(paths), rng)
    return iteration_s(instance, paths)


def lost_to_others(schedule: Schedule, setting: str) -> float:
    """Part of the slowest lone origin's iteration that a plan takes longer, as its origins share nodes."""
    plan, costs, memory = schedule.plan(setting), schedule.costs, schedule.pipeline.memory
    paths = plan.paths_array
    alone = []
    for origin in plan.sends:
        own = paths[paths[:, 0] == origin]
        alone.append(iteration_seconds(own, costs, simulate_first_come_first_served(own, costs, memory)))
    return max(0.0, plan.expected_iteration_s / max(alone) - 1)


def measure(setting: str, scale: str) -> dict[str, Any]:
    """Run a setting of the shipped schedule with run.sh; its summary, or how it failed."""
    name = f"iteration-time-{setting}-{time.strftime('%Y%m%d-%H%M%S')}"
    time_scale, iterations = (0.2, 4) if scale == "quick" else (1.0, 10)
    fields = {"schedule": ORIGINAL, "name": name, "iterations": iterations, "emulation.time_scale": time_scale}
    command = ["./run.sh", "0", "20", setting, "8", *(f"{key}={value}" for key, value in fields.items())]
    print(" ".join(command), flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {"setting": setting, "failed": " ".join(done.stderr.split())[-200:]}
    summary: dict[str, Any] = json.loads((Path("runs") / name / "summary.json").read_text())
    return {"setting": setting, **{key: summary[key] for key in MEASURED}}


if __name__ == "__main__":
    common.main(experiment)
