"""docs/results.md and docs/search.md: the sentences beside the tables have the tables' numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from benchmarks.tables import cells, rows, tables
from experiments.common import LABELS
from tests.test_readme import ROOT, RUNS
from tests.test_results import BENCHMARKS, DOCS, EXPERIMENTS, ITERATION_TIME, beyond, first_number

TOLD = " ".join(DOCS.read_text().split())
SEARCH = " ".join((ROOT / "docs/search.md").read_text().split())
SIMULATED = rows(ITERATION_TIME, "setup | DT-FM* (full pipeline)")
REPORTED = rows(ITERATION_TIME, "setup | saved, paper's method")
COLLISIONS = rows(ITERATION_TIME, "setup | lost to others, SkipPipe without TC2")
TRIALS = rows(ITERATION_TIME, "setup | DT-FM* in the first table")
PARTS = rows(ITERATION_TIME, "setup | paper's method | GCMA's stages, annealed paths")
EIGHT, SIXTEEN = "18 nodes, 25% skip, 8k tokens", "18 nodes, 25% skip, 16k tokens"
FORTY_TWO, SIX_SAMPLES = "42 nodes, 25% skip", "42 nodes, 25% skip, 6 samples a microbatch"
DEFAULTS = "20 nodes, the original's defaults"


def ends(cell: str) -> str:
    """Least and largest of a median's spread, as prose has them."""
    return cell.partition("(")[2].rstrip(")")


def from_to(values: list[int]) -> str:
    return f"{min(values)} to {max(values)}%"


def percents(table: dict[str, dict[str, str]], column: str, wanted: Callable[[str], bool] = bool) -> list[int]:
    return [int(row[column].rstrip("%")) for name, row in table.items() if wanted(name) and row[column] != "-"]


@pytest.mark.parametrize("setup", REPORTED)
def test_every_number_reported_has_ours_beside_it_and_the_difference(setup: str) -> None:
    ours, row = SIMULATED[setup], REPORTED[setup]
    for name in ("baseline", "random", "non-ca-partial", "ca-partial"):
        cell = row[LABELS[name]]
        if cell == "-":
            continue
        reported, above = re.fullmatch(r"([0-9.]+) \(([+-]\d+)%\)", cell).groups()
        # What is shown of ours is rounded to 0.1 s.
        assert float(above) == pytest.approx(
            100 * (first_number(ours[LABELS[name]]) / float(reported) - 1), abs=0.5 + 5 / float(reported)
        )
        own = {"non-ca-partial": "without TC2, ours", "ca-partial": "SkipPipe, ours"}.get(name)
        if own and ours[own] != "-":
            difference = 100 * (first_number(ours[own]) / float(reported) - 1)
            assert float(row[own].rstrip("%")) == pytest.approx(difference, abs=0.5 + 5 / float(reported))


def test_how_far_the_rows_are_from_the_papers() -> None:
    skipping = [re.search(r"\(([+-]\d+)%\)", row["SkipPipe"]) for row in REPORTED.values()]
    small = [int(found[1]) for found in skipping[:3]]
    assert f"we stay {from_to(small)} above the paper's SkipPipe" in TOLD
    own = [-value for value in percents(REPORTED, "SkipPipe, ours")[:3]]
    assert f"with stages of our own {from_to(own)} below" in TOLD
    named = [
        int(found)
        for row in REPORTED.values()
        for column in ("SkipPipe without TC2", "SkipPipe")
        for found in re.findall(r"\(([+-]\d+)%\)", row[column])
    ]
    assert f"rows differ by up to {max(map(abs, named))}% where it names a cost-aware setting" in TOLD
    wide, batch = REPORTED[FORTY_TWO], REPORTED[SIX_SAMPLES]
    saved = [int(wide[f"saved, {method}"].rstrip("%")) for method in ("paper's method", "ours")]
    assert f"42 nodes: saved {from_to(saved)} against the paper's {wide['saved, reported']}" in TOLD
    below = re.search(r"-(\d+%)", wide["SkipPipe"])[1]
    assert (
        f"SkipPipe is {below} (paper's method) and {wide['SkipPipe, ours'].lstrip('-')} (ours) below its 108 s" in TOLD
    )
    six, paper = SIMULATED[SIX_SAMPLES], "saved, paper's method"
    said = f"DT-FM* takes {first_number(six[LABELS['baseline']])} s, as in the paper, but SkipPipe"
    (less,) = re.findall(r"-(\d+%)", batch["SkipPipe"])
    assert f"{said} {first_number(six['SkipPipe'])} s, {less} less than there, and saves {batch[paper]}:" in TOLD


def test_what_tc2_gives() -> None:
    saves = {name: float(row["TC2 saves"].rstrip("%")) for name, row in COLLISIONS.items()}
    lost = {name: float(row["lost to others, SkipPipe without TC2"].rstrip("%")) for name, row in COLLISIONS.items()}
    assert f"**TC2 gives little here**: between {min(saves.values()):.0f}% and {max(saves.values()):.0f}%" in TOLD
    cluster = [lost[name] for name in lost if "one cluster" in name]
    most = max(value for name, value in lost.items() if "one cluster" not in name)
    assert f"is at most {most}% longer (in one cluster {cluster[0]} and {cluster[1]}%)" in TOLD
    more = sum(saves[name] > lost[name] for name in saves)
    assert (more, len(saves)) == (7, 12)
    assert "TC2 saves more than that in seven of twelve setups" in TOLD
    assert lost[EIGHT] == lost[SIXTEEN] == 0.0
    gained = [
        1 - first_number(REPORTED[name]["SkipPipe"]) / first_number(REPORTED[name]["SkipPipe without TC2"])
        for name in (EIGHT, SIXTEEN)
    ]
    assert f"nothing gained ({saves[EIGHT]} and {saves[SIXTEEN]}%); the paper gains " in TOLD
    assert f"the paper gains {100 * gained[0]:.0f} and {gained[1]:.0%} there" in TOLD


def test_trials_and_even_draws() -> None:
    wide, six = (TRIALS[name]["trials"] for name in (FORTY_TWO, SIX_SAMPLES))
    trials = re.sub(r"\d+", lambda found: f"{int(found[0]):,}", wide)
    assert f"({trials} of 8,000 trials, and {int(six):,} with 6 samples)" in TOLD
    assert f"{trials} of them give DT-FM\\* {ends(TRIALS[FORTY_TWO]['DT-FM* in the first table'])} s" in SEARCH
    assert f"all of them {ends(TRIALS[FORTY_TWO][LABELS['baseline']])} s" in SEARCH
    short = {
        name for name, row in TRIALS.items() if row["DT-FM* in the first table"] not in ("-", row[LABELS["baseline"]])
    }
    assert short == {FORTY_TWO, SIX_SAMPLES}
    even = [
        first_number(TRIALS[name]["DT-FM-skip, evenly"]) for name in (EIGHT, SIXTEEN, FORTY_TWO, SIX_SAMPLES, DEFAULTS)
    ]
    assert "take {} s (8k), {} (16k), {} and {} (42 nodes, all trials) and {} s".format(*even) in TOLD


def test_where_random_is_slower_than_full_pipelines() -> None:
    slower = [
        name
        for name, row in SIMULATED.items()
        if first_number(row[LABELS["random"]]) > first_number(row[LABELS["baseline"]]) and "own run" not in name
    ]
    assert slower == [EIGHT, SIXTEEN, FORTY_TWO, SIX_SAMPLES, DEFAULTS]
    assert "slower than DT-FM* in five setups: 8k and 16k tokens, 42 nodes twice, and the original's defaults" in TOLD
    assert "`random` is slower than `baseline`, as in five setups" in TOLD


def test_what_our_part_buys() -> None:
    paths, small = percents(PARTS, "by the paths"), percents(PARTS, "by the stages", lambda name: name.startswith("18"))
    wide = percents(PARTS, "by the stages", lambda name: name.startswith("20"))
    assert f"take {from_to(paths)} off the iteration of the paper's method" in SEARCH
    assert f"then {from_to(small)} of the rest at 18 nodes, {wide[0]} and {wide[1]}% at 20" in SEARCH
    row = SIMULATED[DEFAULTS]
    assert (
        f"finds {ends(row[LABELS['non-ca-partial']])} s without TC2 and {ends(row[LABELS['ca-partial']])} s with it"
        in SEARCH
    )


def test_the_main_job_against_others() -> None:
    joint, partial = RUNS["joint"], RUNS["ca-partial"]
    step, iteration = (
        1 - float(joint[f"{what} s measured"]) / float(partial[f"{what} s measured"]) for what in ("step", "iteration")
    )
    assert f"Against `ca-partial` it is {step:.0%} of the step and {iteration:.0%} of the iteration" in TOLD
    shown = rows(DOCS, "setting | iteration | step | iteration saved")
    skipping = [row for name, row in shown.items() if name not in ("baseline", "joint")]
    less = [
        -int(beyond(first_number(row["original's runtime"]), first_number(row["original's file"])).rstrip("%"))
        for row in skipping
    ]
    assert f"runtime took {from_to(less)} less than its file promises" in TOLD
    over = [first_number(row["iteration"]) / float(row["iteration"].partition("(")[2].rstrip(")")) for row in skipping]
    assert 1 <= min(over) <= max(over) <= 1.01


def test_real_links() -> None:
    text = (BENCHMARKS / "real_links.md").read_text()
    cables, others, uplinks = (
        [float(cells(line)[3]) for line in table[2:]]
        for table in tables(text, "setting | step measured s | expected s | measured over expected | of tasks")
    )
    (alone,) = tables(
        text, "setting | step measured s | expected s | measured over expected | before the changes below"
    )
    slow = [float(cells(line)[3]) for line in alone[2:]]
    told = f"links: {min(cables)} to {max(cables + others)}; {min(uplinks):.1f} to {max(uplinks):.1f} where nodes have"
    assert told in SEARCH
    assert f"{min(slow):.1f} to {max(slow):.1f} for four nodes on two cores" in SEARCH


def test_links_beside_what_was_asked() -> None:
    text = " ".join((BENCHMARKS / "links.md").read_text().split())
    found = tables((BENCHMARKS / "links.md").read_text(), "what")
    speeds = [float(cells(line)[4].split()[0]) for table in found for line in table if line.startswith("| 32 MB")]
    memory = set(re.findall(r"256 MB is received: ([0-9.]+) times", text))
    assert memory == {re.search(r"was ([0-9.]+) in all three", text)[1]}
    told = f"{speeds[0]:.2f} GB/s; on an AMD EPYC {speeds[1]:.2f} and {speeds[2]:.2f} GB/s; {memory.pop()} times the"
    assert f"| 32 MB, encrypted; memory above idle while 256 MB come | {told} message |" in TOLD
    assert f"met on the Xeon and missed by {1 - min(speeds):.0%} in one of two runs" in TOLD
    before, now = re.findall(r"a step took (\S+ and \S+ s) before links were encrypted, (\S+ and \S+ s) with it", text)[
        0
    ]
    assert f"met ({before} before, {now} with it)" in TOLD


def test_losses_of_compressed_trainings() -> None:
    trained = rows(BENCHMARKS / "compression.md", "hops and syncs in | training loss, by seed")
    apart, differ = [], []
    for what in ("training loss, by seed", "held-out loss, by seed"):
        losses = {name: [float(loss) for loss in row[what].split(", ")] for name, row in trained.items()}
        full = losses.pop("fp32")
        apart.append(max(full) - min(full))
        differ.append(max(abs(a - b) for found in losses.values() for a, b in zip(found, full, strict=True)))
    assert max(differ) <= 0.0065
    said = f"of the same seed by at most {differ[0]:.3f}, the held-out loss by at most {differ[1]:.3f}"
    assert f"{said}, while fp32's seeds lie {apart[0]:.3f} and {apart[1]:.3f} apart" in TOLD
    assert f"up to {apart[1]:.3f} apart in held-out loss" in TOLD


def test_sizes_tokens_and_seeds_stand_in_the_sentences_on_quality() -> None:
    text = (EXPERIMENTS / "convergence-quick.md").read_text()
    width = re.search(r"d_model (\d+)", text)[1]
    models = rows(EXPERIMENTS / "convergence-quick.md", "model")
    (tokens,) = {row["tokens"] for row in models.values()}
    full, *others = (float(row["validation perplexity"]) for row in models.values())
    assert max(others) <= full
    assert (
        f"No model of this size (width {width}) that skipped is behind the full one after {tokens} tokens, with one"
        in TOLD
    )
    assert f"here at width {width}, after {tokens} tokens, with one seed each" in TOLD
