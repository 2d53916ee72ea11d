"""A node dies at a random moment, run after run: how soon it is noticed, what the step costs, is the training exact.

    python -m benchmarks.survival [--deaths 20]                                 # the main job, a run a death
    python -m benchmarks.survival --nodes 6 --deaths 100 --at-once 3            # the tests' small job
    python -m benchmarks.survival --nodes 6 --deaths 20 --whole-stages          # a stage loses all of its nodes

A node drawn at random is killed (SIGKILL) at a moment drawn at random from one step of the main job, or three of the
small one. Losses and weights are compared with those of one process that nobody disturbs (reference.py), or if a stage
has lost all of its nodes, with a replay of views.jsonl in one process (skippipe/replay.py). What is measured is kept
beside the results file, so a call that was cut short goes on where it was. Steps stand beside the simulation's of the
same deaths.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import whole_runs
from benchmarks.deaths import TOLERANCE, Death, Deaths
from benchmarks.jobs import MAIN_NODES, SMALL_NODES, Job, job_of
from benchmarks.kept import FAILED, Kept
from benchmarks.simulated_deaths import simulate, told
from skippipe.report.views import TAKEOVER

ITERATIONS, STEPS = {MAIN_NODES: 4, SMALL_NODES: 5}, {MAIN_NODES: 1.0, SMALL_NODES: 3.0}
"""Of a run; and expected steps from the end of the first iteration on, of which the moment is one."""
OUT = {MAIN_NODES: "survival", SMALL_NODES: "survival_small"}
MOST_NOTICED_S, MOST_STEP = 0.2, 1.15
HEADER = (
    "| nodes | after, steps | lost in | way | noticed, s | agreed, s | step | following | losses | tensors | replicas"
    " | exact |",
    "|---" * 12 + "|",
)
NOBODY = "nobody"


def row_of(key: str, outcome: dict[str, Any]) -> str:
    """A line of the table."""
    if FAILED in outcome:
        return f"| {key} failed: {outcome[FAILED]} |{' |' * 11}"
    if key != NOBODY:
        return Death(**outcome).row()
    differences = f"{outcome['loss_difference']:.1e} | {outcome['tensor_difference']:.1e}"
    equal = "equal" if outcome["are_equal"] else "DIFFER"
    return f"| {NOBODY} | - | - | - | - | - | {outcome['step']:.2f} | - | {differences} | {equal} | - |"


def exactness(deaths: list[Death], failed: int) -> str:
    """A sentence on what was trained."""
    if not deaths:
        return f"{failed} runs failed."
    loss, tensor = (max(getattr(death, f"{name}_difference") for death in deaths) for name in ("loss", "tensor"))
    taken_over = sum(death.way == TAKEOVER for death in deaths)
    replayed = sum(death.is_replayed for death in deaths)
    return (
        f"Of {len(deaths) + failed} deaths {sum(death.is_exact for death in deaths)} left the training exact, to"
        f" {TOLERANCE:g} of losses and of each tensor of weights and to the bit among replicas; {taken_over} were taken"
        f" over, {replayed} lost a whole stage, or what was too far, and are compared with the replay of their views,"
        f" {failed} runs failed."
        f" Losses differ by at most {loss:.1e}, tensors by {tensor:.1e}."
    )


def times(deaths: list[Death]) -> str:
    """Sentences on how long it took."""
    noticed, agreed, steps = ([getattr(death, name) for death in deaths] for name in ("noticed_s", "agreed_s", "step"))
    following = [death.following for death in deaths if death.following is not None]
    later = f", those after it {statistics.median(following):.2f}" if following else ""
    met = [
        f"; asked: {most:g}{unit}, {'met' if statistics.median(found) <= most else '**not met**'}"
        for found, most, unit in ((noticed, MOST_NOTICED_S, " s"), (steps, MOST_STEP, ""))
    ]
    # Of an iteration that is begun again nothing is asked.
    met[1] = met[1] * all(death.way == TAKEOVER for death in deaths)
    return (
        f"In real seconds: noticed after {statistics.median(noticed):.3f} s (median; at most {max(noticed):.3f} s"
        f"{met[0]}), agreed on after {statistics.median(agreed):.3f} s (at most"
        f" {max(agreed):.3f} s). The step of the death took {statistics.median(steps):.2f} of the expected one (median;"
        f" mean {statistics.mean(steps):.2f}, at most {max(steps):.2f}{met[1]}){later}."
    )


def report(head: list[str], kept: Kept, are_times_meant: bool, job: Job) -> list[str]:
    """The results file, of what is kept so far."""
    # Those that were done at once ended in any order.
    keys = sorted(kept.outcomes, key=lambda key: -1 if key == NOBODY else int(key.split()[-1]))
    runs = [kept.outcomes[key] for key in keys if key != NOBODY]
    deaths = [Death(**outcome) for outcome in runs if FAILED not in outcome]
    lines = [*head, *HEADER, *(row_of(key, kept.outcomes[key]) for key in keys)]
    lines += ["", exactness(deaths, len(runs) - len(deaths))]
    if deaths and are_times_meant:
        lines += ["", times(deaths), *told(simulate(job, deaths))]
    elif deaths:
        lines += ["", "Several runs went on at once, so times say nothing."]
    return lines


def main() -> None:
    """Kill, compare, and write the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, choices=tuple(OUT), default=MAIN_NODES)
    parser.add_argument("--deaths", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=1, metavar="RUNS", help="more than 1: times say nothing")
    whole = "all nodes of a stage but the first die at once"
    parser.add_argument("--whole-stages", action="store_true", help=whole)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="results file; default: in benchmarks/results")
    options = parser.parse_args()
    out = options.out or Path(f"benchmarks/results/{OUT[options.nodes]}{'_stages' * options.whole_stages}.md")
    command = f"python -m benchmarks.survival --nodes {options.nodes} --at-once {options.at_once} --seed {options.seed}"
    command += " --whole-stages" * options.whole_stages
    kept, place = Kept(out.with_suffix(".jsonl"), command), Path(tempfile.mkdtemp())
    job, nodes = job_of(options.nodes, place), options.nodes
    runs = Deaths(job, place / "runs", ITERATIONS[nodes], STEPS[nodes], options.seed, options.whole_stages)
    what = "A stage loses all of its nodes" if options.whole_stages else "A node dies"
    head = whole_runs.header(f"{what} at a random moment", f"{command} --deaths {options.deaths}")
    head[2] += f" {nodes} nodes, {ITERATIONS[nodes]} iterations a run; steps are over the expected one."

    def one(number: int) -> None:
        kept.once(f"death {number}", lambda: runs.one(number))

    kept.once(NOBODY, runs.nobody)
    with ThreadPoolExecutor(options.at_once) as pool:
        for _ in tqdm(pool.map(one, range(options.deaths)), total=options.deaths, unit="death", file=sys.stderr):
            lines = report(head, kept, options.at_once == 1, job)
            out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    runs.starter.close()
    print("\n".join(lines))
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
