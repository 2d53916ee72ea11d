"""Churn: nodes die at random and come back; takeover against discarding the iteration and restarts from checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import common
import published
import torch
from churning import COUNTS, STUCK_S, Churn, Work
from trained import AVERAGED, Trained, Way, mean_of_known

from benchmarks.jobs import MAIN_NODES, SETTING, SMALL_NODES, job_of
from benchmarks.kept import Kept
from skippipe.data.batches import prepare
from skippipe.reference import ReferenceTrainer

REACH = {0.01: 0.95, 0.05: 0.80, 0.10: 0.65}
"""Steps a second over undisturbed that are asked of takeover, by the chance of a death."""
TARGET = 0.5
"""The loss that is timed is the undisturbed run's after this part of its iterations."""
STYLES = {Way.OURS: ("o-", "#e7298a"), Way.REDO: ("s--", "#7570b3"), Way.RESTART: ("D:", "#8c8c8c")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this experiment takes besides the scale."""
    ways = [way.name.lower() for way in Way]
    nodes = (MAIN_NODES, SMALL_NODES)
    parser.add_argument("--nodes", type=int, choices=nodes, default=MAIN_NODES, help="6: the tests' small job")
    parser.add_argument("--iterations", type=int, help="of each training (default: 100 quick, 500 full)")
    percent = "chances that a node dies in an iteration, in percent"
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 5.0, 10.0], metavar="PERCENT", help=percent)
    parser.add_argument("--ways", nargs="+", choices=ways, default=ways, help="what follows on a death")
    parser.add_argument("--checkpoint-every", type=int, default=1, metavar="ITERATIONS", help="in all ways")
    limit = "end a training at so many times the undisturbed one's time"
    parser.add_argument("--limit", type=float, default=3.0, metavar="TIMES", help=f"{limit}: with takeover")
    parser.add_argument("--limit-others", type=float, default=1.25, metavar="TIMES", help=f"{limit}: the other ways")
    parser.add_argument(
        "--spread", type=int, default=5, metavar="SEEDS", help="undisturbed seeds to compare losses with"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the deaths")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the trainings")


def experiment() -> None:
    """Train undisturbed and under churn whatever is not trained yet, and write the results."""
    arguments = common.parse_arguments(__doc__, add_arguments)
    name = (
        "churn"
        + ("" if arguments.quick else "-full")
        + ("" if arguments.nodes == MAIN_NODES else f"-{arguments.nodes}-nodes")
    )
    runs = arguments.runs / name
    work = work_of(arguments, runs)
    began, disturbed = time.time(), dict[tuple[Way, float], Trained]()
    arguments.results.mkdir(parents=True, exist_ok=True)
    sizes = f"{work.config.iterations} iterations, a checkpoint every {arguments.checkpoint_every}"
    kept = Kept(arguments.results / f"{name}.jsonl", f"{work.nodes} nodes, {sizes}, seed {arguments.seed}")
    spread = last_losses(work, arguments.spread, kept)
    undisturbed = train(work, Way.OURS, 0.0, arguments, kept, runs, math.inf)
    for way, rate in itertools.product(map(Way.__getitem__, map(str.upper, arguments.ways)), arguments.rates):
        limit = arguments.limit if way is Way.OURS else arguments.limit_others
        disturbed[way, rate] = train(work, way, rate / 100, arguments, kept, runs, limit * undisturbed.real_s)
        # After each: who knows whether there is time for the next.
        results = common.Results(name, "Churn: nodes die and come back", arguments.results, began=began)
        report(results, work, arguments, undisturbed, disturbed, spread)
        results.write()


def work_of(arguments: argparse.Namespace, runs: Path) -> Work:
    """What is trained."""
    iterations = arguments.iterations or (100 if arguments.quick else 500)
    fields = [f"iterations={iterations}", f"checkpoint_every={arguments.checkpoint_every}"]
    if not arguments.quick:
        fields.append("emulation.time_scale=1.0")
    job = job_of(arguments.nodes, runs / "workplace")
    return Work(SETTING, job.samples, (str(job.file), *fields))


def train(
    work: Work, way: Way, rate: float, arguments: argparse.Namespace, kept: Kept, runs: Path, limit_s: float
) -> Trained:
    """A training, or what an earlier call has kept of the same one."""
    # Of an undisturbed one no limit is known yet, nor needed.
    times = arguments.limit if way is Way.OURS else arguments.limit_others
    key = f"{way.name.lower()}, {100 * rate:g}%" + ("" if math.isinf(limit_s) else f", at most {times:g} times as long")
    if key not in kept.outcomes:
        kept.add(key, dataclasses.asdict(Churn(work, way, rate, arguments.seed, runs, limit_s).train()))
    return Trained(**kept.outcomes[key])


def last_losses(work: Work, seeds: int, kept: Kept) -> list[float]:
    """The losses at the end of trainings of so many seeds, on all cores; those that are kept are taken."""
    missing = [seed for seed in range(seeds) if loss_key(seed) not in kept.outcomes]
    with ProcessPoolExecutor() as pool:
        for seed, loss in zip(missing, pool.map(partial(last_loss_of, work), missing), strict=True):
            kept.add(loss_key(seed), {"loss": loss})
    return [kept.outcomes[loss_key(seed)]["loss"] for seed in range(seeds)]


def loss_key(seed: int) -> str:
    """Under which the loss of a training that nobody disturbs is kept."""
    return f"loss of weights and batches of seed {seed}"


def last_loss_of(work: Work, seed: int) -> float:
    """The loss at the end of a training that nobody disturbs, from another seed's weights and batches."""
    torch.set_num_threads(1)
    other = Work(work.setting, work.samples, (*work.arguments, f"seed={seed}"))
    config = other.config
    trainer = ReferenceTrainer(config, other.plan, work.samples, prepare(config.data))
    losses = [trainer.train_iteration(iteration) for iteration in range(config.iterations)]
    last = mean_of_known(losses[-AVERAGED:])
    assert last is not None
    return last


Disturbed = Mapping[tuple[Way, float], Trained]


def report(
    results: common.Results,
    work: Work,
    arguments: argparse.Namespace,
    undisturbed: Trained,
    disturbed: Disturbed,
    spread: Sequence[float],
) -> None:
    """Everything that the results file says after its provenance."""
    describe(results, work, arguments, undisturbed)
    results.table(
        [
            *("on a death", "churn", "iterations", "steps/s emulated", "steps/s real", "asked", "loss at the end"),
            *("deaths", *(name.replace("_", " ") for name in COUNTS), "nodes at work, mean", "starts", "stuck"),
            *("longest gap, real s", "replayed", "replay's losses off by"),
        ],
        [row(trained, undisturbed) for trained in (undisturbed, *disturbed.values())],
    )
    results.text(verdict(undisturbed, disturbed, spread))
    target = undisturbed.loss_after(int(TARGET * undisturbed.wanted) - 1)
    if target is not None:
        times(results, undisturbed, disturbed, target)
        caption = f"Seconds to a loss of {target:.3f}, and steps a second, over churn"
        results.figure(figure(undisturbed, disturbed, target), results.name, caption)
    if said := [
        f"- {trained.way} {trained.rate:.0%}: {line}" for trained in disturbed.values() for line in trained.said
    ]:
        results.text("Starts that ended of their own, or were stuck:\n\n" + "\n".join(said))
    results.text("## What others have published")
    results.table(published.HEADER, published.PUBLISHED)


def describe(results: common.Results, work: Work, arguments: argparse.Namespace, undisturbed: Trained) -> None:
    """What was done, and what the columns are."""
    config, every = work.config, arguments.checkpoint_every
    faster, model = 1 / config.emulation.time_scale, config.model
    results.text(
        f"{work.nodes} nodes train `{work.setting}` of `{config.schedule}`, {config.iterations} iterations: a LLaMA of"
        f" width {model.d_model}, {model.layers_per_stage} layer a stage, context {model.context}. A step should take"
        f" {work.plan.expected_step_s:.1f} s of the schedule, of which {faster:g} pass in a real one. Checkpoints are"
        f" saved every {every} iterations in all ways. At the beginning of each iteration it is drawn which nodes die"
        " in it (each with the chance named, seeded) and when; a process is killed then (SIGKILL), if the node has one."
    )
    results.text(
        "With takeover and redo its launcher starts it again (peers.restart, with its back-off in real time). With"
        " restarts the whole run is ended at once and begun again from the newest checkpoint by a new launcher, and so"
        " are runs of the other ways if they end. Discard and redo is takeover's own system, patched to redo each"
        " iteration in which a node is lost (experiments/noted_run.py); it has no such setting."
    )
    results.text(
        "Steps a second are iterations done over all time since the nodes first met, over the same undisturbed."
        f" *Emulated*: {faster:g} s of the schedule for each real second of training, and the real seconds of each"
        " later start, which would take no longer on slower links. *Real*: as the clock went; a start's seconds then"
        f" cost {faster:g} times what they would on the schedule's network. The loss is the mean of the last {AVERAGED}"
        f" iterations'. A run is stuck, and ended, if no iteration ends for {STUCK_S:g} s; a training ends unfinished"
        f" after {arguments.limit:g} times the {undisturbed.real_s:.0f} s that the undisturbed one took with takeover,"
        f" {arguments.limit_others:g} times in the other ways, whose speed is then that of what they did until then."
        " Counts are of summary.json, which restarts that are killed do not write. *Replayed*: iterations with takeover"
        " that one process has trained again along views.jsonl, up to where a lost stage is back, and how far a loss is"
        " off at most, relatively."
    )


def steps_over(trained: Trained, undisturbed: Trained, is_real: bool) -> float:
    """Steps a second of a training over those of the undisturbed one."""
    own, other = ((each.real_s if is_real else each.emulated_s) for each in (trained, undisturbed))
    return trained.done / own / (undisturbed.done / other)


def row(trained: Trained, undisturbed: Trained) -> list[Any]:
    """A training as a row of the table."""
    way = Way[trained.way]
    ratios = [f"{steps_over(trained, undisturbed, is_real):.2f}" for is_real in (False, True)]
    asked = REACH.get(trained.rate) if way is Way.OURS else None
    return [
        way.value if trained.rate else "undisturbed",
        f"{trained.rate:.0%}",
        trained.done if trained.is_over else f"{trained.done} of {trained.wanted}",
        *ratios,
        f"{asked:.2f}" if asked else None,
        f"{trained.last_loss:.4f}" if trained.last_loss is not None else None,
        trained.deaths,
        *(round(trained.counts[name], 1) if trained.counts["views"] else None for name in COUNTS),
        f"{trained.members:.1f}" if trained.members is not None else None,
        trained.starts,
        trained.stuck,
        f"{trained.longest_gap_s:.1f}",
        trained.replayed or None,
        f"{trained.replay_difference:.1e}" if trained.replayed else None,
    ]


def verdict(undisturbed: Trained, disturbed: Disturbed, spread: Sequence[float]) -> str:
    """Losses under churn beside those of undisturbed seeds."""
    if not spread or undisturbed.last_loss is None:
        return "Losses were compared with no other seeds."
    low, high = min(spread), max(spread)
    ours = [trained.last_loss for (way, _), trained in disturbed.items() if way is Way.OURS and trained.is_over]
    # As they are shown: the last digits are the order of sums.
    inside = sum(round(low, 4) <= round(loss, 4) <= round(high, 4) for loss in ours)
    return (
        f"Undisturbed, {len(spread)} seeds of weights and batches end with losses of {low:.4f} to {high:.4f} (trained"
        f" in one process, skippipe/reference.py); {inside} of {len(ours)} trainings with takeover end inside of that."
    )


def times(results: common.Results, undisturbed: Trained, disturbed: Disturbed, target: float) -> None:
    """When each training had a loss."""
    results.text(f"Seconds until the loss was first at most {target:.4f}, the undisturbed run's after {TARGET:.0%}:")
    rows = []
    for trained in (undisturbed, *disturbed.values()):
        way = Way[trained.way].value if trained.rate else "undisturbed"
        seconds = [trained.seconds_to(target, is_real) for is_real in (False, True)]
        cells = [f"{second:.0f}" if second is not None else "not reached" for second in seconds]
        rows.append([way, f"{trained.rate:.0%}", *cells])
    results.table(["on a death", "churn", "emulated s", "real s"], rows)


def figure(undisturbed: Trained, disturbed: Disturbed, target: float) -> Any:
    """Time to a loss, and steps a second, over the chance of a death."""
    drawn, (left, right) = common.new_figure(2, 11)
    for way in dict.fromkeys(way for way, _ in disturbed):
        style, colour = STYLES[way]
        points = [undisturbed, *(trained for (own, _), trained in disturbed.items() if own is way)]
        points.sort(key=lambda trained: trained.rate)
        rates = [100 * trained.rate for trained in points]
        seconds = [trained.seconds_to(target) for trained in points]
        left.plot(rates, [math.nan if s is None else s for s in seconds], style, label=way.value, color=colour)
        for trained, second in zip(points, seconds, strict=True):
            if second is None:
                # At the upper edge, since it would have come later than the training was ended.
                place, edge = (100 * trained.rate, 0.96), left.get_xaxis_transform()
                left.plot(*place, "^", color=colour, fillstyle="none", transform=edge)
                said = f"not reached in {trained.emulated_s:.0f} s  "
                left.annotate(said, place, xycoords=edge, ha="right", va="center", fontsize=8)
        right.plot(rates, [steps_over(trained, undisturbed, False) for trained in points], style, color=colour)
    left.set(title=f"Time to a loss of {target:.3f}", ylabel="seconds of the schedule", yscale="log")
    right.set(title="Speed", ylabel="steps a second over undisturbed, emulated", ylim=(0, None))
    for axes in (left, right):
        axes.set(xlabel="each node dies with so many percent an iteration")
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("{x:g}")
    left.margins(y=0.15)
    left.legend(frameon=False, fontsize=9, loc="lower right")
    return drawn


if __name__ == "__main__":
    common.main(experiment)
