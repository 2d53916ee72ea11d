"""What docs/results.md says of survival: the numbers of the results files of nodes that die, stop and come back."""

from __future__ import annotations

import re

from benchmarks.tables import cells, rows, tables
from tests.test_results import BENCHMARKS, DOCS, EXPERIMENTS, lines


def test_survival() -> None:
    shown = {row[0]: row[1:] for row in lines(DOCS, "what | measured | simulated, death known after 1 s / 6 s")}
    text = " ".join((BENCHMARKS / "survival.md").read_text().split())
    noticed, latest, agreed, longest = re.findall(
        r"noticed after ([0-9.]+) s \(median; at most ([0-9.]+) s[^)]*\), "
        r"agreed on after ([0-9.]+) s \(at most ([0-9.]+) s",
        text,
    )[0]
    said = f"{noticed} s, {float(agreed):.2f} s (medians; at most {latest}, {float(longest):.2f})"
    assert shown["noticed, agreed on who goes on"][0] == said
    step, mean, most, following = re.findall(
        r"took ([0-9.]+) of the expected one \(median; mean ([0-9.]+), at most ([0-9.]+)[^)]*\), "
        r"those after it ([0-9.]+)\.",
        text,
    )[0]
    simulated = {
        row[1]: row
        for row in lines(BENCHMARKS / "takeover_simulation.md", "setting | known after")
        if row[0] == "ca-partial"
    }
    one, six = simulated["1 s"], simulated["6 s"]
    assert shown["step of the death over the expected one"] == [
        f"{step} (median), {mean} (mean), {most} (most)",
        f"{one[2]}, {six[2]} (means); {one[4]}, {six[4]} (most)",
    ]
    after = next(
        row for row in lines(BENCHMARKS / "takeover_simulation.md", "setting | merged order") if row[0] == "ca-partial"
    )
    assert shown["following steps, heirs for good"] == [f"{following} (median)", f"{after[2].split()[0]} (mean)"]
    seeds = rows(BENCHMARKS / "agreement.md", "what happened, in all of these")["seeds"]["times"]
    assert any(f"{seeds} seeds" in what for what in shown)
    losses, weights = re.findall(r"Losses differ by at most ([0-9.e-]+), tensors by ([0-9.e-]+)\.", text)[0]
    alone = rows(BENCHMARKS / "survival.md", "nodes | after, steps | lost in")["nobody"]
    what = "losses and weights against one undisturbed process, all 20 runs"
    assert re.findall(r"[0-9.]+e-\d", shown[what][0]) == [
        number.replace("e-0", "e-") for number in (losses, weights, alone["losses"], alone["tensors"])
    ]
    assert "Of 20 deaths 20 left the training exact" in text
    before, measured, known, during, syncs = re.findall(
        r"(\d+) deaths before the sync took steps of ([0-9.]+) .* had agreed, ([0-9.]+); .* "
        r"(\d+) during the sync, .* took ([0-9.]+)\.",
        text,
    )[0]
    prose = " ".join(DOCS.read_text().split())
    assert f"the {before} deaths before the sync take {known}, measured {measured}" in prose
    assert f"the {during} deaths during the sync, which took {syncs}" in prose


def test_soak_and_small_deaths() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | measured | simulated, death known after 1 s / 6 s")}
    text = (BENCHMARKS / "soak.md").read_text()
    found = {row[0]: row[1:] for row in lines(BENCHMARKS / "soak.md", "what | found | asked")}
    assert {row[2] for row in found.values()} == {"yes"}
    memory = lines(BENCHMARKS / "soak.md", "process | samples")
    assert {row[-1] for row in memory} == {"yes"}
    more = sorted(float(row[3]) - float(row[2]) for row in memory)
    nodes, minutes = re.findall(r"^(\d+) nodes, ca-partial, (\d+) minutes of training", text, re.M)[0]
    kinds = {4: "four", 7: "seven"}[len(lines(BENCHMARKS / "soak.md", "fault | how often"))]
    what = (
        f"{found['faults'][0]} faults of {kinds} kinds, {nodes} nodes, one run of {minutes} minutes,"
        f" {found['proposer killed'][0]} times the proposer killed"
    )
    gap = found["between the ends of two iterations, real"][0].split(" s;")[0]
    assert shown[what] == (
        f"{gap} s between the ends of two iterations at most;"
        f" memory {more[0]:.1f} to {more[-1]:.1f} MB more in the last quarter"
    )
    assert "Nothing failed: all nodes were back after the last fault" in text
    for name, what, of in (
        ("survival_small", "{0} deaths in {0} runs of 6 nodes", "one undisturbed process"),
        ("survival_small_stages", "all nodes of a stage killed at once, {0} runs of 6 nodes", "their replay"),
    ):
        runs, exact, losses, weights = re.findall(
            r"Of (\d+) deaths (\d+) left the .* 0 runs failed\. Losses differ by at most (\S+), tensors by (\S+)\.",
            (BENCHMARKS / f"{name}.md").read_text(),
        )[0]
        within = f"within {losses} and {weights} of {of}".replace("e-0", "e-")
        assert shown[what.format(runs)] == f"{exact} exact: losses and weights {within}"


def test_the_hour_in_real_time() -> None:
    prose, path = " ".join(DOCS.read_text().split()), BENCHMARKS / "soak_real.md"
    text = path.read_text()
    found = {row[0]: row[1:] for row in lines(path, "what | found | asked")}
    assert {row[2] for row in found.values()} == {"yes"}
    iterations, first, last = re.findall(r": (\d+) iterations, .* loss ([0-9.]+) to ([0-9.]+)\.", text)[0]
    assert (
        f"{found['faults'][0]} faults of seven kinds in one run of {int(iterations):,} iterations,"
        f" {found['proposer killed'][0]} times the proposer killed"
    ) in prose
    assert len(lines(path, "fault | how often")) == 7
    gap = found["between the ends of two iterations, real"][0].split(" s;")[0]
    assert f"to the next took {gap} s (asked: 30); all nodes were back at the end, loss {first} to {last}." in prose
    assert "Nothing failed: all nodes were back after the last fault" in text
    memory = [row for row in lines(path, "process | samples") if "node" in row[0]]
    more = sorted(float(row[3]) - float(row[2]) for row in memory)
    assert [row[-1] for row in memory].count("**NO**") == 1
    assert f"one had {more[2]:.1f} MB more in the last quarter" in prose
    assert f"the others {more[0]:.1f} and {more[1]:.1f} (asked: 10, missed by one)" in prose


def test_returns() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | measured | simulated, death known after 1 s / 6 s")}
    found = re.findall(
        r"10 times (SIG\w+): .*; (\d+) were useful within .* slowed by ([0-9.]+%) \(at most ([0-9.]+%)\)",
        (BENCHMARKS / "survival_return.md").read_text(),
    )
    assert [name for name, *_ in found] == ["SIGKILL", "SIGSTOP"]
    for name, useful, median, most in found:
        (told,) = [told for what, told in shown.items() if f"({name}), left out" in what or f"({name}) and" in what]
        assert told == (f"{useful} of 10 useful in the first iteration after; slowed by {median} (at most {most})")


def test_what_survival_costs() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | measured | simulated, death known after 1 s / 6 s")}
    text = (BENCHMARKS / "survival_before.md").read_text()
    step, most, megabytes, room = re.findall(
        r"takes ([0-9.]+) of .*most ([0-9.]+)\), a node has ([-+0-9.]+ MB) \(asked: at most \+(\d+)\): met", text
    )[0]
    what = "undisturbed, against the last build without survival, 3 turns each: step, most memory of a node"
    assert shown[what] == f"{step}, {megabytes}"
    assert f"asked was at most {most} of the step and {room} MB more, met" in " ".join(DOCS.read_text().split())


def test_replanning() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | measured | simulated, death known after 1 s / 6 s")}
    text, losses = (BENCHMARKS / "replanning.md").read_text(), lines(BENCHMARKS / "replanning.md", "setting | node")
    median, most, asked = re.findall(r"median ([0-9.]+), most ([0-9.]+); asked ([0-9.]+): met", text)[0]
    what = f"a node is lost for good, {len(losses)} times: step of the plan that is found in 10 s over that of 60 s of"
    assert shown[f"{what} search"] == f"{median} (median), {float(most):.2f} (most), simulated"
    prose = " ".join(DOCS.read_text().split())
    assert f"Asked was a median of {asked}, met; one of `joint`'s has {float(most):.2f}." in prose
    for setting, words in (("ca-partial", "the heirs' own steps take {} more"), ("joint", "and with `joint` {}.")):
        parts = sorted(float(row[3]) / float(row[2]) - 1 for row in losses if row[0] == setting)
        assert words.format(f"{100 * parts[0]:.0f} to {parts[-1]:.0%}") in prose
    found = sorted(1 - float(row[4]) / float(row[2]) for row in losses if row[0] == "ca-partial")
    assert f"the plan found is {100 * found[0]:.0f} to {found[-1]:.0%} below what it was" in prose


def test_noticing() -> None:
    shown = {row[0]: row[1] for row in lines(DOCS, "what | measured | simulated, death known after 1 s / 6 s")}
    found = re.findall(
        r"- (.*): (\d+) runs, 0 failed\. Noticed after ([0-9.]+) s .*at most ([0-9.]+) s; asked: 6 s, met\), "
        r"gone on without after ([0-9.]+) s \(at most ([0-9.]+) s\)",
        (BENCHMARKS / "noticing.md").read_text(),
    )
    assert len(found) == 3
    for how, runs, noticed, latest, agreed, longest in found:
        told = f"noticed after {noticed} s (at most {latest}), gone on without after {agreed} s (at most {longest})"
        assert shown[f"{how}, {runs} runs"] == told


def test_churn() -> None:
    path = EXPERIMENTS / "churn.md"
    (table,) = tables(path.read_text(), "on a death | churn | iterations")
    header, _, *found = map(cells, table)
    trained = [dict(zip(header, row, strict=True)) for row in found]
    undisturbed, disturbed = trained[0], trained[1:]
    shown: dict[str, list[str]] = {}
    for row in disturbed:
        done = "" if row["iterations"] == "100" else f", {row['iterations']} done"
        shown.setdefault(row["on a death"], []).append(f"{row['steps/s emulated']}{done}")
    assert lines(DOCS, "on a death | 1%") == [[way, *cells] for way, cells in shown.items()]
    prose = " ".join(DOCS.read_text().split())
    ours, restarts = (
        [row for row in disturbed if row["on a death"].startswith(way)] for way in ("takeover", "restart")
    )
    assert all(float(row["steps/s emulated"]) >= float(row["asked"]) for row in ours)

    def listed(rows: list[dict[str, str]], name: str) -> str:
        *first, last = (row[name] for row in rows)
        return f"{', '.join(first)} and {last}"

    off = [row["replay's losses off by"] for row in ours]
    low, high = re.findall(r"end with losses of ([0-9.]+) to ([0-9.]+) .*3 of 3 trainings", path.read_text())[0]
    for said in (
        f"Asked of takeover were {listed(ours, 'asked')}: met, with {listed(ours, 'deaths')} deaths.",
        f"losses end at {listed(ours, 'loss at the end')}, the undisturbed run's at {undisturbed['loss at the end']}",
        f"five undisturbed seeds at {low} to {high}.",
        f"The {listed(ours, 'replayed')} iterations that were replayed",
        f"have losses within {max(off, key=float)}.",
        f"at most {max((row['longest gap, real s'] for row in ours), key=float)} real seconds lay between",
        f"restarts would have {listed(restarts, 'steps/s real')}.",
    ):
        assert said in prose
    assert {row["stuck"] for row in trained} == {"0"}
