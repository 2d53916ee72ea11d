"""What all experiments share: arguments, and results files with hardware, versions, command, tables and figures."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skippipe.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# Modules of benchmarks/ and tests/ are no part of the package.
sys.path.append(str(ROOT))
PACKAGES = ("torch", "numpy", "transformers", "numba", "deccom", "simplellm", "matplotlib")
COLOURS = {
    "baseline": "#8c8c8c",
    "random": "#d95f02",
    "non-ca-partial": "#7570b3",
    "ca-partial": "#1b9e77",
    "joint": "#e7298a",
}
LABELS = {
    "baseline": "DT-FM* (full pipeline)",
    "random": "DT-FM-skip (random skips)",
    "non-ca-partial": "SkipPipe without TC2",
    "ca-partial": "SkipPipe",
    "joint": "joint search (ours)",
}


def parse_arguments(description: str | None, extend: Callable[[argparse.ArgumentParser], None] | None = None) -> Any:
    """Arguments of an experiment: --quick or --full, --results, and what `extend` adds."""
    parser = argparse.ArgumentParser(description=description, epilog="Paths are from the repository's root on.")
    scale = parser.add_mutually_exclusive_group(required=True)
    scale.add_argument("--quick", action="store_true", help="what two CPU cores do in minutes")
    scale.add_argument("--full", action="store_true", help="what a large machine does")
    parser.add_argument("--results", type=Path, default=ROOT / "experiments" / "results", help="folder of results")
    if extend:
        extend(parser)
    return parser.parse_args()


def main(experiment: Callable[[], None]) -> None:
    """Run an experiment from the repository's root; a user's mistake is one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.chdir(ROOT)
    try:
        experiment()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@dataclass
class Results:
    """A results file in the making."""

    name: str
    """Stem of the file: results/<name>.md."""
    title: str
    folder: Path
    measured: Sequence[str] = ()
    """Each command whose numbers are told, with date and hardware; by default this one."""
    began: float = field(default_factory=time.time)
    parts: list[str] = field(default_factory=list)

    def text(self, paragraph: str) -> None:
        """Add a paragraph."""
        self.parts.append(paragraph)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table."""
        self.parts.append(table(header, rows))

    def figure(self, figure: Any, name: str, caption: str) -> None:
        """Save a matplotlib figure beside the file and show it there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png", dpi=130, bbox_inches="tight")
        self.parts.append(f"![{caption}]({name}.png)")

    def write(self) -> Path:
        """Write the file and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.name}.md"
        measured = self.measured or [f"{measured_now(self.began)}; {time.time() - self.began:.0f} s"]
        path.write_text("\n\n".join([f"# {self.title}", provenance(measured), *self.parts]) + "\n", encoding="utf-8")
        print(f"wrote {path}")
        return path


def measured_now(began: float) -> str:
    """The command that runs, as a user types it, the day on which it began, and the hardware."""
    from benchmarks.whole_runs import hardware

    command = " ".join(["python", f"experiments/{Path(sys.argv[0]).name}", *map(shlex.quote, sys.argv[1:])])
    return f"`{command}`; {time.strftime('%Y-%m-%d', time.gmtime(began))}; {hardware()}"


def provenance(measured: Sequence[str]) -> str:
    """Commands with date and hardware, and versions, as lines of a list."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [f"Command: {line}" for line in measured]
    return "\n".join(f"- {line}" for line in [*lines, f"Versions: Python {platform.python_version()}, {versions}"])


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; None becomes a dash, floats get three digits."""
    lines = [list(header), ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: Any) -> str:
    """One value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def new_figure(columns: int = 1, width: float = 7.0, height: float = 4.2) -> tuple[Any, Any]:
    """A figure with axes side by side, plain and light; one axes is returned as itself, several as an array."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.axisbelow": True,
            "font.size": 10,
        }
    )
    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), constrained_layout=True)
    return figure, axes
