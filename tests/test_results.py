"""docs/results.md and bounds.md: each row of their tables has the numbers of the results file that it is from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.tables import cells, rows, tables
from experiments.common import LABELS
from tests.test_readme import ROOT, RUNS

DOCS = ROOT / "docs/results.md"
BENCHMARKS, EXPERIMENTS = ROOT / "benchmarks/results", ROOT / "experiments/results"
ITERATION_TIME = EXPERIMENTS / "iteration-time-quick.md"
INSTANCES = {
    "the original's schedule, its stages": "original-20-nodes, its stages",
    "the original's defaults": "the original's defaults",
    "20 nodes, 12 locations": "20-nodes",
    "42 nodes": "42-nodes",
}


def lines(path: Path, head: str) -> list[list[str]]:
    """All rows of the tables with such a header, as cells without back quotes."""
    return [
        [cell.replace("`", "") for cell in cells(line)]
        for table in tables(path.read_text(), head)
        for line in table[2:]
    ]


def first_number(cell: str) -> float:
    return float(cell.split()[0].rstrip("%"))


def beyond(seconds: str | float, reported: float) -> str:
    """How far a number is above a reported one."""
    return f"{round(float(seconds) / reported - 1, 2) + 0.0:+.0%}"


def test_the_main_job() -> None:
    file = {row[0]: row for row in lines(BENCHMARKS / "main_job.md", "setting | iterations")}
    (shown,) = tables(DOCS.read_text(), "setting | iteration | step")
    assert [row[0] for row in map(cells, shown[2:])] == [f"`{setting}`" for setting in RUNS]
    base = [float(RUNS["baseline"][f"{what} s measured"]) for what in ("iteration", "step")]
    original = rows(ITERATION_TIME, "setting | iteration measured")
    for setting, *row in (cells(line.replace("`", "")) for line in shown[2:]):
        iteration, iteration_expected, step, step_expected, over = file[setting][6:11]
        assert row[:2] == [f"{iteration} ({iteration_expected})", f"{step} ({step_expected})"]
        saved = [f"{1 - float(now) / full:.0%}" for now, full in zip((iteration, step), base, strict=True)]
        assert row[2:5] == [*(["-", "-"] if setting == "baseline" else saved), over]
        if setting != "joint":
            promised, taken = (first_number(cell) for cell in row[5:])
            assert row[5].endswith(f" ({beyond(iteration_expected, promised)})")
            assert row[6].endswith(f" ({beyond(iteration, taken)})")
            assert taken == float(original[LABELS[setting]]["original, iteration"])


@pytest.mark.parametrize(
    "head",
    [
        "setup | DT-FM* (full pipeline)",
        "setup | saved, paper's method",
        "setup | paper's method | GCMA's stages, annealed paths",
        "setup | DT-FM* | DT-FM-skip",
    ],
)
def test_tables_of_the_iteration_time_are_the_files(head: str) -> None:
    assert tables(DOCS.read_text(), head) == tables(ITERATION_TIME.read_text(), head) != []


def test_convergence() -> None:
    file = rows(EXPERIMENTS / "convergence-quick.md", "model")
    shown = lines(DOCS, "trained as | stages")
    assert sorted(row[0] for row in shown) == sorted(file)
    for label, stages, perplexity, against in shown:
        assert (stages, against) == (file[label]["stages"], file[label]["against full"])
        assert float(perplexity) == float(file[label]["validation perplexity"])


def test_models_that_lose_stages() -> None:
    shown = rows(DOCS, "trained as | 0%")
    file = lines(EXPERIMENTS / "inference-robustness-quick.md", "trained as")[: len(shown)]
    assert [[label, *list(row.values())[1:]] for label, row in shown.items()] == file
    counts = re.findall(r"- \d stages: .*", (EXPERIMENTS / "inference-robustness-quick.md").read_text())
    six, four = ([int(number) for number in re.findall(r"(\d+) at", line)] for line in counts)
    said = f"which are {min(six)} to {max(six)} different choices of 6 stages and {min(four)} to {max(four)} of 4"
    assert said in " ".join(DOCS.read_text().split())


def test_bytes() -> None:
    file = {row[0]: row for row in reversed(lines(EXPERIMENTS / "bytes-and-time-quick.md", "setting"))}
    for setting, *row in lines(DOCS, "setting | activations and gradients (GiB)"):
        assert row == file[LABELS[setting]][1:4]


def test_compression() -> None:
    runs = rows(BENCHMARKS / "compression.md", "case | MB of hops sent | expected step s")
    searched = lines(BENCHMARKS / "compression.md", "hops and syncs in | ca-partial: iteration s")
    joint = {row[0]: row[-1] for row in searched}
    for encoding, *row in lines(DOCS, "hops and syncs in"):
        name = "all in fp32" if encoding == "fp32" else f"hops and syncs in {encoding}"
        columns = ("MB of hops sent", "expected step s", "measured step s", "loss last")
        assert row == [*(runs[name][column] for column in columns), joint[encoding]]


def test_drifting_links() -> None:
    found = tables((EXPERIMENTS / "drifting-links-quick.md").read_text(), "setting | drift")
    parts = dict(zip(("original's", "paper's method", "ours"), found, strict=True))
    for schedule, setting, expected, drifted in lines(DOCS, "schedule | setting"):
        (row,) = [row for row in map(cells, parts[schedule]) if row[:2] == [LABELS[setting], "50%"]]
        assert [expected, drifted] == row[2:4]


def test_reach() -> None:
    file, bounds = rows(BENCHMARKS / "search.md", "instance"), rows(BENCHMARKS / "bounds.md", "instance | bound before")
    closer = {name: float(row["closer bound"]) for name, row in bounds.items()}
    closer[INSTANCES["the original's schedule, its stages"]] = closer["original, iteration"]
    shown = rows(DOCS, "instance | `ca-partial`, iteration")
    assert set(shown) == set(INSTANCES)
    for instance, row in shown.items():
        name = INSTANCES[instance]
        seconds = first_number(file[name]["ca-partial"])
        assert float(row["`ca-partial`, iteration"]) == seconds
        assert f"+{row['over the quick bound of any stages']}" == file[name]["over any stages' bound"]
        assert f"+{row['over that of its stages']}" == file[name]["over its stages' bound"]
        assert row["over the closer one"] == f"{seconds / closer[name] - 1:.0%}"


def test_how_much_is_left() -> None:
    bounds = rows(BENCHMARKS / "bounds.md", "instance | bound before")
    left = {
        name: f"{1 - float(row['closer bound']) / float(row['best plan known']):.0%}" for name, row in bounds.items()
    }
    text = " ".join(DOCS.read_text().split())
    assert f"{left['original, iteration']} shorter in the original's iteration" in text
    assert f"{left['original, step, 1 layer']} in its step, {left['defaults, iteration']} in the defaults' iter" in text
    four, deep, wide = (left[name] for name in ("original, step, 4 layers' sync", "42 nodes, step", "100 nodes, step"))
    assert f"it is {four[:-1]}, {deep[:-1]} and {wide}." in text


def test_budgets() -> None:
    medians = {(row[0], first_number(row[1])): row[2:4] for row in lines(BENCHMARKS / "budgets.md", "instance")}
    columns = ("ca-partial, iteration", "joint, step")
    ((header, *_),) = tables(DOCS.read_text(), "instance | setting | 5 s")
    for instance, setting, *row in lines(DOCS, "instance | setting | 5 s"):
        for budget_s, shown in zip(map(first_number, cells(header)[2:]), row, strict=True):
            found = medians.get((INSTANCES[instance], budget_s))
            assert shown == (found[columns.index(setting)].split()[0] if found else "-")


def test_the_budgets_file_says_where_more_time_hurt() -> None:
    before: dict[str, list[float]] = {}
    for name, _, *found, said in lines(BENCHMARKS / "budgets.md", "instance"):
        medians = [first_number(cell) for cell in found]
        above = any(now > 1.01 * then for now, then in zip(medians, before.get(name, medians), strict=True))
        assert said == (("yes" if above else "no") if name in before else "")
        before[name] = medians


def test_search_cost() -> None:
    ((header, _, *found),) = tables((EXPERIMENTS / "search-cost-quick.md").read_text(), "nodes | budget (s)")
    ((head, *_),) = tables(DOCS.read_text(), "nodes | budget (s)")
    columns = [cells(header).index(name) for name in cells(head)]
    file = [[row[column] for column in columns] for row in map(cells, found)]
    assert lines(DOCS, "nodes | budget (s)") == file
    trials = {nodes: [f"{int(row[3]):,}" for row in map(cells, found) if row[0] == nodes] for nodes in ("20", "40")}
    said = "{}, {} and {} trials at 20 nodes and for {}, {} and {} at 40".format(*trials["20"], *trials["40"])
    text = " ".join(DOCS.read_text().split())
    assert said in text
    step, papers, ours = (
        cells(header).index(name) for name in ("step of SkipPipe, ours", "SkipPipe", "SkipPipe, ours")
    )
    steps = [first_number(row[step]) for row in map(cells, found)]
    assert "does fall: {}, {} and {} s".format(*steps[:3]) in text
    assert "does not fall ({}, {} and {} s)".format(*steps[3:]) in text
    shorter = [100 - 100 * first_number(row[ours]) / first_number(row[papers]) for row in map(cells, found)]
    assert f"Our method's SkipPipe is {min(shorter):.0f} to {max(shorter):.0f}% shorter" in text
    spreads = [re.findall(r"[0-9.]+", row[ours])[1:] for row in map(cells, found)]
    apart = [float(largest) - float(least) for least, largest in spreads]
    assert f"Seeds lie {min(apart):.1f} to {max(apart):.1f} s apart." in text


def test_joint() -> None:
    file = rows(BENCHMARKS / "joint.md", "instance | ca-partial | joint | spread")
    shown = {row[0]: row[1:] for row in lines(DOCS, "instance, 60 s on two cores, median of 5 seeds")}
    columns = ("ca-partial", "joint", "below", "over any stages' bound")
    assert shown == {name: [row[column] for column in columns] for name, row in file.items()}


def test_links() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | result")}
    runs = [
        {row[0]: row for row in map(cells, table[2:])}
        for table in tables((BENCHMARKS / "links.md").read_text(), "what")
    ]
    for column, what in ((5, "goodput of 1, 32, 256 MB, encrypted"), (3, "the same without encryption")):
        told = next(result for name, result in shown.items() if name.startswith(what))
        for run in runs:
            assert ", ".join(run[size][column].split()[0] for size in ("1 MB", "32 MB", "256 MB")) in told
    told = next(result for name, result in shown.items() if name.startswith("round trip"))
    for run in runs:
        assert f"{run['round trip'][4]}, {run['round trip'][5].split()[0]} times" in told
    ready = rows(BENCHMARKS / "start_up.md", "nodes")
    for nodes, row in ready.items():
        seconds, memory = list(row.values())[1:]
        assert shown[f"{nodes} nodes ready after"] == f"{seconds.split()[0]} s, {memory} MB a node"
    hostile = list(rows(BENCHMARKS / "hostile.md", "")["iteration s"].values())
    said = f"{first_number(hostile[2])} s, undisturbed {hostile[1]} s, same losses"
    assert shown["iteration among 10,000 hostile messages"] == said


def test_real_links() -> None:
    text = (BENCHMARKS / "real_links.md").read_text()
    measured = [list(map(cells, table[2:])) for table in tables(text, "setting | step measured s")[:3]]
    shown = lines(DOCS, "command | setting | step expected (s)")
    found = [[setting, expected, ratio] for rows in measured for setting, _, expected, ratio, *_ in rows]
    assert [[setting.strip("`"), *rest] for _, setting, *rest in shown] == found


def test_overhead() -> None:
    measured = [
        [job.partition(": ")[2], tasks, f"{nodes}, {process}", ratio, reach]
        for job, tasks, nodes, process, ratio, reach, *_ in lines(BENCHMARKS / "overhead.md", "job | tasks ms")
    ]
    assert lines(DOCS, "model | forward, loss, backward (ms)") == measured
    ratios = [[float(each) for each in re.findall(r"[0-9.]+", row[3])] for row in measured]
    assert all(turns[0] <= float(row[4]) for turns, row in zip(ratios, measured, strict=True))
    apart = max(max(turns) - min(turns) for turns in ratios)
    assert f"Both met, by the medians; turns of the same lie up to {apart:.2f} apart." in DOCS.read_text()


def test_memory() -> None:
    measured = lines(BENCHMARKS / "memory.md", "job | heap")
    shown = [row[1:] for row in lines(DOCS, "nodes | rows within 10%")]
    for told, heap, jobs in zip(
        shown,
        ("returning", "glibc", "glibc"),
        (("even", "wide", "long", "other"), ("even", "wide", "long"), ("other",)),
        strict=True,
    ):
        found = [row for row in measured if row[1] == heap and row[0] in jobs]
        ratios = [float(ratio) for row in found for ratio in row[-2].split(" to ")]
        met = sum(row[-1] == "yes" for row in found)
        assert told == [f"{met} of {len(found)}", f"{min(ratios):.2f} to {max(ratios):.2f}"]
    text = " ".join((ROOT / "docs" / "runtime.md").read_text().split())
    assert f"took {shown[0][1]} of what is estimated for tensors and process" in text
    worst = max(float(ratio) for row in measured for ratio in row[-2].split(" to "))
    least = min(float(ratio) for row in measured for ratio in row[-2].split(" to ") if row[1] == "glibc")
    assert f"all four took {least:.2f} to {worst:.2f} of the whole estimate" in text
    assert f"to which it was not fitted {shown[2][1]}" in text
    most = {tuple(row[:5]): [float(each) for each in row[6].split(" to ")] for row in measured}
    pairs = [(peak, most[name, "returning", *rest]) for (name, heap, *rest), peak in most.items() if heap == "glibc"]
    less = [1 - pick(other) / pick(peak) for peak, other in pairs for pick in (min, max)]
    assert f"had {100 * min(less):.0f} to {100 * max(less):.0f}% less" in text


def test_fuzzing() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | result")}
    text, parsers = (BENCHMARKS / "fuzz.md").read_text(), lines(BENCHMARKS / "fuzz.md", "parser")
    (seconds,) = set(re.findall(r"fuzz\.py --seconds (\d+)", text))
    told = shown[f"{sum(int(row[1]) for row in parsers):,} mutated inputs to {len(parsers)} parsers, {seconds} s each"]
    assert "No crash." in text
    assert told.startswith("no crash, ")
    for line in re.findall(r"minutes of the whole: (.*) MB", text):
        seen = line.split(", ")
        assert f"{seen[0]} MB of memory at first, {seen[-1]} MB at last" in told


def test_chaos() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | result")}
    file = {row[0]: row[1] for row in lines(BENCHMARKS / "chaos.md", "")}
    told = next(result for what, result in shown.items() if what.startswith("the main job in chaos"))
    iterations, cuts = file["iterations"].split(",")[0], int(file["connections cut"])
    assert told == f"weights and losses of {iterations} iterations the same to the bit, {cuts:,} connections cut"
    assert file["weights of all nodes, to the bit"] == "the same"
    assert file["losses, to the bit"].startswith("the same, ")
    assert file["nodes lost"] == "0"


def test_collectives() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | result")}
    file = lines(BENCHMARKS / "collectives.md", "replicas | size")
    for replicas, what, rest in (
        ("3", "all-reduce of 1, 16, 64, 256 MB among 3", " of its"),
        ("5", "the same among 5", ""),
    ):
        ratios = {row[1]: row[4].split()[0] for row in file if row[0] == replicas}
        assert list(ratios) == ["1 MB", "16 MB", "64 MB", "256 MB"]
        told = next(result for name, result in shown.items() if name.startswith(what))
        assert told.startswith(", ".join(ratios.values()) + rest)
    for speed, *row in lines(BENCHMARKS / "collectives.md", "replicas, Mbit/s"):
        replicas, megabits = speed.split(", ")
        told = shown[f"the same among {replicas} whose uplinks have {megabits} Mbit/s"]
        assert f"{row[3].split()[0]} at {row[0]}" in told


def test_bounds_stand_beside_the_best_plans_that_are_known() -> None:
    minute = rows(BENCHMARKS / "joint.md", "instance | ca-partial | joint | spread")
    five = rows(BENCHMARKS / "joint.md", "instance | ca-partial | joint | below")
    partial = rows(BENCHMARKS / "search.md", "instance")
    shown = rows(BENCHMARKS / "bounds.md", "instance | bound before")
    assert set(minute) == set(five) <= set(shown)
    for name, row in shown.items():
        joint = min(first_number(minute[name]["spread"]), float(five[name]["joint"])) if name in minute else None
        best = first_number(partial[name]["ca-partial"]) if joint is None else joint
        assert float(row["best plan known"]) == best
        for bound, over in (("bound before", "over the bound before"), ("closer bound", "over the closer")):
            assert row[over] == f"{best / float(row[bound]) - 1:.0%}"
