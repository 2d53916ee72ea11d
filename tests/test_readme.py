"""The README: its numbers are those of the results files, its links lead somewhere, and it is short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.tables import rows
from skippipe.config import RunConfig
from skippipe.fields import load_config
from skippipe.schedule import Schedule
from skippipe.transport.identity import read_secret

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PROSE = " ".join(README.partition("**Does the paper reproduce?**")[2].partition("![")[0].split())
RESULTS = " ".join(README.partition("## Results")[2].partition("## From Python")[0].split())
ORIGINAL = ROOT / "configs/schedules/original-20-nodes.json"
SCHEDULE = Schedule.load(ORIGINAL)
RUNS = rows(ROOT / "benchmarks/results/main_job.md", "setting")
FULL = {name: float(RUNS["baseline"][f"{name} s measured"]) for name in ("iteration", "step")}


def measured(setting: str, what: str) -> float:
    """Seconds of a setting's iteration or step."""
    return float(RUNS[setting][f"{what} s measured"])


def test_every_setting_has_the_times_that_were_measured() -> None:
    shown = rows(ROOT / "README.md", "setting")
    assert set(shown) == set(RUNS)
    for setting, row in shown.items():
        assert row["iteration"] == f"{measured(setting, 'iteration'):.1f} s"
        assert row["step"] == f"{measured(setting, 'step'):.1f} s"
        saved = f"{1 - measured(setting, 'step') / FULL['step']:.0%}"
        assert row["saved of the step"] == ("-" if setting == "baseline" else saved)


def test_the_table_is_told_as_it_is() -> None:
    (said,) = re.findall(r"all within (\d+)% of what the simulation expects", RESULTS)
    for row in RUNS.values():
        assert abs(float(row["measured over expected"]) - 1) <= int(said) / 100
    assert f"so its {1 - measured('joint', 'step') / FULL['step']:.0%} are against this baseline" in RESULTS


def test_the_run_that_is_shown_is_like_the_one_that_was_measured() -> None:
    row, plan = RUNS["ca-partial"], SCHEDULE.plan("ca-partial")
    for what, expected_s in (("iteration", plan.expected_iteration_s), ("step", plan.expected_step_s)):
        line = rf"^{what} +([0-9.]+) s measured \(median\), {expected_s:.2f} s expected$"
        (shown,) = re.findall(line, README, re.M)
        assert abs(float(shown) - measured("ca-partial", what)) <= 0.02
    (bar,) = re.findall(r"^ca-partial: 100%.*$", README, re.M)
    assert f" {row['iterations']}/{row['iterations']} [" in bar
    assert f"expected={plan.expected_step_s:.1f} s, loss={row['loss last']}," in bar


def test_the_sentence_on_saved_time() -> None:
    iteration = measured("ca-partial", "iteration")
    best = float(rows(ROOT / "benchmarks/results/search.md", "instance")["original-20-nodes, its stages"]["baseline"])
    assert f"measured {iteration:.1f} s an iteration" in PROSE
    assert f"against {FULL['iteration']:.1f} s along full pipelines" in PROSE
    assert f"{1 - iteration / FULL['iteration']:.0%} less" in PROSE
    assert f"({best:.1f} s, simulated) it is {1 - iteration / best:.0%}" in PROSE


def test_the_stand_in_is_the_one_of_the_default_configuration() -> None:
    config = load_config(RunConfig, ROOT / "configs/default.yaml")
    assert f"{config.schedule}.json" == ORIGINAL.name
    layers = SCHEDULE.pipeline.stages * config.model.layers_per_stage
    assert {int(row["iterations"]) for row in RUNS.values()} == {config.iterations}
    assert f"({layers} layers of width {config.model.d_model}, {config.iterations} iterations, one seed)" in PROSE


def test_the_sentence_on_convergence() -> None:
    models = rows(ROOT / "experiments/results/convergence-quick.md", "model")
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


def test_the_command_for_a_secret_makes_one_that_is_taken_and_not_committed(tmp_path: Path) -> None:
    found = [re.search(r"\(umask[^)]*\)", text) for text in (README, (ROOT / "docs/machines.md").read_text())]
    commands = {" ".join(match[0].split()) for match in found if match}
    assert None not in found
    assert len(commands) == 1
    subprocess.run(["bash", "-c", f"umask 022; {commands.pop()}"], cwd=tmp_path, check=True)
    secret = tmp_path / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(read_secret(str(secret))) >= 32
    assert "/secret" in (ROOT / ".gitignore").read_text().splitlines()
