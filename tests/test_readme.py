"""The README: its numbers are those of the results files, its links lead somewhere, and it is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PROSE = " ".join(README.partition("**Does the paper reproduce?**")[2].partition("![")[0].split())


def table(path: str, head: str) -> dict[str, dict[str, str]]:
    """Rows of the table of a Markdown file whose header begins with `head`, by their first cell."""
    lines = iter((ROOT / path).read_text().splitlines())
    header = next(cells(line) for line in lines if line.startswith(f"| {head} |"))
    next(lines)
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        if not line.startswith("|"):
            break
        # A later column of a name, such as "expected", does not hide the first.
        row = dict(reversed(list(zip(header, cells(line), strict=True))))
        rows[row[header[0]].strip("`")] = row
    return rows


def cells(line: str) -> list[str]:
    """The cells of a table's line."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


RUNS = table("benchmarks/results/main_job.md", "setting")


def test_every_setting_has_the_times_that_were_measured() -> None:
    shown = table("README.md", "setting")
    assert set(shown) == set(RUNS)
    full = float(RUNS["baseline"]["step s measured"])
    for setting, row in shown.items():
        iteration, step = (float(RUNS[setting][f"{name} s measured"]) for name in ("iteration", "step"))
        assert row["iteration"] == f"{iteration:.1f} s"
        assert row["step"] == f"{step:.1f} s"
        assert row["saved of the step"] == ("-" if setting == "baseline" else f"{1 - step / full:.0%}")


def test_measured_and_expected_differ_by_no_more_than_is_said() -> None:
    (said,) = re.findall(r"all within (\d+)% of what the simulation expects", " ".join(README.split()))
    for row in RUNS.values():
        assert abs(float(row["measured over expected"]) - 1) <= int(said) / 100


def test_the_sentence_on_saved_time() -> None:
    iteration = {setting: float(row["iteration s measured"]) for setting, row in RUNS.items()}
    best = float(table("benchmarks/results/search.md", "instance")["original-20-nodes, its stages"]["baseline"])
    assert f"measured {iteration['ca-partial']:.1f} s an iteration" in PROSE
    assert f"against {iteration['baseline']:.1f} s along full pipelines" in PROSE
    assert f"{1 - iteration['ca-partial'] / iteration['baseline']:.0%} less" in PROSE
    assert f"({best:.1f} s, simulated) it is {1 - iteration['ca-partial'] / best:.0%}" in PROSE


def test_the_sentence_on_convergence() -> None:
    models = table("experiments/results/convergence-quick.md", "model")
    full, skipping = models["full model (DT-FM*)"], models["33% skip, 6 stages (SkipPipe)"]
    perplexity = {name: float(row["validation perplexity"]) for name, row in (("full", full), ("skip", skipping))}
    assert full["tokens"] == skipping["tokens"]
    assert f"{full['tokens']} tokens, one seed" in PROSE
    said = f"validation perplexity {perplexity['skip']:.1f} with 33% skip and {perplexity['full']:.1f} without"
    assert said in PROSE
    text = (ROOT / "experiments/results/convergence-quick.md").read_text()
    layers, width = re.search(r"LLaMA with (\d+) layers, d_model (\d+)", text).groups()
    assert f"{layers} layers of width {width}" in PROSE


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{name}: {target}"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120
