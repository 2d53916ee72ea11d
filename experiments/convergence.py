"""Convergence: full model, 25% and 33% skip, with the paths of each setting, with and without swaps and CC3."""

from __future__ import annotations

import argparse
from typing import Any

import common
import training
from training import COLOURS, MAIN, VARIANTS, Scale, Variant

from skippipe.data.batches import prepare

Lines = list[dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this experiment takes besides the scale."""
    names = [variant.name for variant in VARIANTS]
    training.add_arguments(parser)
    parser.add_argument("--variants", nargs="+", choices=names, default=names, help="train these only")


def experiment() -> None:
    """Train every variant that is not trained yet and write the results."""
    arguments = common.parse_arguments(__doc__, add_arguments)
    scale = training.scale_of(arguments)
    results = common.Results(f"convergence-{scale.name}", f"Convergence, {scale.name} scale", arguments.results)
    trained = {
        variant: training.train(variant, scale, arguments.runs)
        for variant in VARIANTS
        if variant.name in arguments.variants
    }
    report(results, scale, trained)
    results.write()


def report(results: common.Results, scale: Scale, trained: dict[Variant, Lines]) -> None:
    """Everything that the results file says after its provenance."""
    prepared = prepare(training.config_of(VARIANTS[0], scale).data)
    unigram = training.unigram_perplexity(scale, prepared)
    model, ends = scale.model, {variant: lines[-1] for variant, lines in trained.items()}
    results.text(
        f"LLaMA with {scale.layers} layers, d_model {model.d_model}, {model.heads} heads, context {model.context}; "
        f"AdamW, learning rate {scale.optimizer.learning_rate:g} after {scale.optimizer.warmup_iterations} warm-up "
        f"iterations, clip {scale.optimizer.clip:g}; {training.MICROBATCHES} microbatches of {scale.samples} sequences "
        f"an iteration; the sources of Python's standard library, vocabulary {prepared.vocabulary}. Trained by "
        "skippipe/reference.py, which does in one process exactly what the peers do. Validation perplexity is that of "
        f"the full model, every stage in order, on {scale.validation_samples} held-out sequences; one seed each. "
        f"The unigram model of the training text has perplexity {unigram:.0f}. All models saw the same number of "
        f"tokens; processor time of training: {sum(line['cpu_s'] for line in ends.values()) / 60:.0f} minutes in all, "
        "in earlier calls of the command too, which takes models that it finds trained as they are."
    )
    full = next((line["validation_perplexity"] for variant, line in ends.items() if variant.name == "full"), None)
    header = ["model", "stages", "tokens", "training loss", "validation perplexity", "against full", "CPU s"]
    rows = []
    for variant in VARIANTS:
        if variant not in ends:
            rows.append([variant.label, variant.stages, "not run", None, None, None, None])
            continue
        line = ends[variant]
        perplexity = line["validation_perplexity"]
        against = f"{100 * (perplexity / full - 1):+.1f}%" if full and variant.name != "full" else None
        rows.append(
            [
                variant.label,
                variant.stages,
                f"{line['tokens']:,}",
                line["loss"],
                perplexity,
                against,
                round(line["cpu_s"]),
            ]
        )
    results.table(header, rows)
    results.text(
        "The paper's claim is equal convergence of the full model, 25% and 33% skip (LLaMA 500M and 1.5B; curves, no "
        "table of numbers). The training loss of a skipping model is that of its partial paths; only the validation "
        "column compares like with like. Settings take their paths from the original's 20-node schedule "
        f"(`{training.SCHEDULE}`), the same ones every iteration; drawn paths are drawn once under the rules named."
    )
    if scale.name == "quick":
        results.text(
            "Who comes out ahead says little, among the skipping models too: models of this size, so few tokens and "
            "one seed each tell nothing of the paper's claim."
        )
        results.text(training.NOT_RUN)
    results.figure(curves(trained), f"{results.name}-curves", "Validation perplexity over tokens")
    results.figure(bars(ends, unigram), f"{results.name}-variants", "Final validation perplexity of every variant")


def curves(trained: dict[Variant, Lines]) -> Any:
    """Validation perplexity over tokens: full model and skipping ones, and the settings of one schedule."""
    figure, (left, right) = common.new_figure(2, 11)
    for variant, lines in trained.items():
        points = [line for line in lines if "validation_perplexity" in line]
        tokens = [line["tokens"] / 1e6 for line in points]
        perplexities = [line["validation_perplexity"] for line in points]
        if variant.name in MAIN:
            left.plot(tokens, perplexities, "o-", ms=3, label=variant.label, color=COLOURS[variant.name])
        if variant.setting:
            label, colour = common.LABELS[variant.setting], common.COLOURS[variant.setting]
            right.plot(tokens, perplexities, "o-", ms=3, label=label, color=colour)
    left.set(title="Full model and skipping ones")
    right.set(title="Settings of the original's 20-node schedule")
    for axes in (left, right):
        axes.set(xlabel="training tokens (millions)", yscale="log", ylabel="validation perplexity, full model")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(value)[0] in "235" else "")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    return figure


def bars(ends: dict[Variant, dict[str, Any]], unigram: float) -> Any:
    """Final validation perplexity of every variant."""
    figure, axes = common.new_figure(1, 7.5, 0.45 * len(ends) + 1.2)
    labels = [variant.label for variant in ends]
    values = [line["validation_perplexity"] for line in ends.values()]
    drawn = axes.barh(labels, values, color=[COLOURS.get(variant.name, "#b3cde3") for variant in ends])
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.grid(False)
    axes.set(
        xlabel="validation perplexity of the full model after the same tokens (less is better)",
        title=f"By the paths that it trained on (unigram model: {unigram:.0f})",
    )
    return figure


if __name__ == "__main__":
    common.main(experiment)
