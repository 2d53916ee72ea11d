"""Robustness: perplexity of the full, 25% and 33% trained models without some stages, at random or by early exit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import common
import training
from training import COLOURS, MAIN, VARIANTS, Scale, Variant

from skippipe.data.batches import prepare
from skippipe.errors import UserError
from skippipe.model.checkpoint import find_latest, load_stages
from skippipe.model.inference import Validation, all_stages, early_exit, leave_out_at_random, validate

RATIOS = (0.0, 0.25, 1 / 3, 0.5, 0.75)
PAPER = (
    "In the paper's figure models trained with skips degrade little, the fully trained one a lot; its claim is that "
    "half of the model costs 7% perplexity (a later version: 2% at 75% of the model)."
)


def experiment() -> None:
    """Load or train the three models and leave stages out of each."""
    arguments = common.parse_arguments(__doc__, add_arguments)
    scale = training.scale_of(arguments)
    results = common.Results(
        f"inference-robustness-{scale.name}", f"Inference without some stages, {scale.name} scale", arguments.results
    )
    measured: dict[Variant, dict[str, list[Validation | None]]] = {}
    for variant in (variant for variant in VARIANTS if variant.name in MAIN):
        training.train(variant, scale, arguments.runs)
        measured[variant] = measure(variant, scale, arguments.runs, arguments.draws)
    report(results, scale, arguments.draws, measured)
    results.write()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this experiment takes besides the scale."""
    training.add_arguments(parser)
    parser.add_argument("--draws", type=int, default=12, help="random choices of stages a ratio (default %(default)s)")


def measure(variant: Variant, scale: Scale, runs: Path, draws: int) -> dict[str, list[Validation | None]]:
    """Validation at every ratio, at random and by early exit; None if so much can't be left out."""
    checkpoint = find_latest(runs / f"convergence-{scale.name}" / variant.name)
    stages = load_stages(checkpoint, scale.device)
    batches = list(training.held_out(scale, prepare(checkpoint.meta.config.data)))
    measured: dict[str, list[Validation | None]] = {"random": [], "early exit": []}
    for ratio in RATIOS:
        try:
            visited = leave_out_at_random(len(stages), ratio, draws, seed=0) if ratio else (all_stages(len(stages)),)
        except UserError:
            measured["random"].append(None)
        else:
            measured["random"].append(validate(stages, visited, batches))
        kept = (1 - ratio) * len(stages)
        exits = [early_exit(len(stages), round(kept) - 1)] if abs(kept - round(kept)) < 1e-9 else []
        measured["early exit"].append(validate(stages, exits, batches) if exits else None)
        print(f"{variant.name}: {ratio:.0%} left out", flush=True)
    return measured


def report(
    results: common.Results, scale: Scale, draws: int, measured: dict[Variant, dict[str, list[Validation | None]]]
) -> None:
    """Tables, sentence and figure."""
    results.text(
        f"The models of convergence-{scale.name}.md after {scale.iterations} iterations, validated without some of "
        f"their stages; stage 0 always stays and counts in the ratio. At random: mean and deviation of the perplexity "
        f"over {draws} draws; if ratio x stages is no whole number, draws take the numbers around it. Early "
        "exit: the last stages are left out; a dash if the ratio is no whole number of stages."
    )
    for way in ("random", "early exit"):
        results.text(f"## Perplexity, {way}")
        rows = [[variant.label, *(shown(value) for value in ways[way])] for variant, ways in measured.items()]
        results.table(["trained as", *(f"{ratio:.0%} left out" for ratio in RATIOS)], rows)
    results.text(f"Different choices of stages among the draws:\n\n{choices(measured)}")
    results.text(f"## Loss of quality at 50%, random\n\n{half_gone(measured)}")
    results.text(PAPER)
    if scale.name == "quick":
        results.text(
            "These models are small and saw few tokens. That the full model loses far more than the skipping ones is "
            "what to take from here, not the sizes; which of the two skipping ones loses less, one seed can't tell."
        )
        results.text(training.NOT_RUN)
    results.figure(plot(measured), results.name, "Perplexity against the part of the stages that is left out")


def shown(value: Validation | None) -> str | None:
    """Mean and deviation as they stand in a table."""
    if value is None:
        return None
    spread = f" +- {value.perplexity_deviation:.1f}" if len(value.visited) > 1 else ""
    return f"{value.perplexity:.1f}{spread}"


def choices(measured: dict[Variant, dict[str, list[Validation | None]]]) -> str:
    """How many different choices of stages the draws of each ratio are, a line for each number of stages."""
    by_stages = {variant.stages: ways["random"][1:] for variant, ways in measured.items()}
    return "\n".join(
        f"- {stages} stages: "
        + ", ".join(
            f"{len(set(value.visited))} at {ratio:.0%}"
            for ratio, value in zip(RATIOS[1:], values, strict=True)
            if value
        )
        for stages, values in by_stages.items()
    )


def half_gone(measured: dict[Variant, dict[str, list[Validation | None]]]) -> str:
    """What the models lose when half of the stages are gone, in one sentence each."""
    lines = []
    for variant, ways in measured.items():
        whole, half = ways["random"][0], ways["random"][RATIOS.index(0.5)]
        assert whole is not None
        assert half is not None
        lines.append(
            f"- {variant.label}: {whole.perplexity:.1f} with all stages, {half.perplexity:.1f} with half of "
            f"them, {100 * (half.perplexity / whole.perplexity - 1):+.0f}%."
        )
    return "\n".join(lines)


def plot(measured: dict[Variant, dict[str, list[Validation | None]]]) -> Any:
    """Perplexity over the ratio, random on the left and early exit on the right."""
    figure, panels = common.new_figure(2, 11)
    for axes, way in zip(panels, ("random", "early exit"), strict=True):
        for variant, ways in measured.items():
            points = [(100 * ratio, value) for ratio, value in zip(RATIOS, ways[way], strict=True) if value]
            axes.errorbar(
                [ratio for ratio, _ in points],
                [value.perplexity for _, value in points],
                [value.perplexity_deviation for _, value in points],
                fmt="o-",
                capsize=3,
                label=variant.label,
                color=COLOURS[variant.name],
            )
        axes.set(xlabel="stages left out (%)", ylabel="validation perplexity", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.legend(frameon=False, fontsize=9, title="trained as")
    panels[0].set_title("Random stages left out (mean and deviation)")
    panels[1].set_title("Early exit: the last stages left out")
    panels[1].sharey(panels[0])
    return figure


if __name__ == "__main__":
    common.main(experiment)
