"""Mutate what comes from the network and from strangers' files, and feed it to what reads it.

`python benchmarks/fuzz.py --seconds 600` gives each parser ten minutes, `.. --parsers records answers` two of them.
Whatever comes, a parser may only say that it is malformed; anything else ends the fuzzing with the bytes that did it.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

import whole_runs
from fuzz_documents import Documents
from fuzz_links import Network

BATCH = 1000
MEMORY_SECONDS = 300.0
Parser = Callable[[random.Random], int]
"""Feeds a batch; how many inputs that was."""


def parsers_of(network: Network, documents: Documents) -> dict[str, Parser]:
    """All of them."""
    of_network: list[Parser] = [
        network.messages,
        network.records,
        network.openings,
        network.answers,
        network.first_records,
        network.replies,
        network.greetings,
        network.datagrams,
    ]
    of_documents: list[Parser] = [
        documents.agreement,
        documents.views_and_reports,
        documents.metadata,
        documents.feedback,
        documents.shared_figures,
        documents.collectives,
        documents.calls,
    ]
    return {parser.__name__: parser for parser in (*of_network, *of_documents)}


def megabytes() -> float:
    """MB of this process, without garbage that Python would collect some day: exceptions' frames, for instance."""
    gc.collect()
    return whole_runs.resident_megabytes()


class Memory:
    """Looks at this process's memory from time to time, so that it can be seen whether it grows."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.seen: list[float] = []
        """MB every MEMORY_SECONDS."""

    def look(self, name: str) -> None:
        """Note it, if it is time to."""
        now = time.monotonic() - self.began
        if now >= MEMORY_SECONDS * len(self.seen):
            self.seen.append(megabytes())
            print(f"{now:5.0f} s  {self.seen[-1]:6.1f} MB  {name}", flush=True)


def feed(name: str, parser: Parser, generator: random.Random, seconds: float, memory: Memory) -> str:
    """Feed one parser for some time; its line of the table."""
    began, inputs = time.monotonic(), 0
    parser(generator)
    before = megabytes()
    while time.monotonic() - began < seconds:
        memory.look(name)
        inputs += parser(generator)
    after = megabytes()
    return f"| {name.replace('_', ' ')} | {inputs} | {before:.1f} | {after:.1f} |"


def main() -> None:
    """Fuzz for a while and write down how much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="how long to fuzz each parser")
    parser.add_argument("--parsers", nargs="+", metavar="NAME", help="which ones; all by default")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fuzz.md"), help="results file")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    network, documents = Network(BATCH), Documents(BATCH)
    known = parsers_of(network, documents)
    names = arguments.parsers or list(known)
    if unknown := set(names) - known.keys():
        parser.error(f"no parser {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    command = f"python benchmarks/fuzz.py --seconds {arguments.seconds:.0f}"
    command += f" --parsers {' '.join(names)}" if arguments.parsers else ""
    lines = whole_runs.header("Fuzzing the parsers", command)
    lines += ["No crash.", "", "| parser | mutated inputs | MB after the first batch | MB at its end |"]
    lines += ["|---|---|---|---|"]
    generator, memory = random.Random(0), Memory(time.monotonic())
    lines += [feed(name, known[name], generator, arguments.seconds, memory) for name in names]
    memory.look("the end")
    seen = ", ".join(f"{size:.0f}" for size in memory.seen)
    lines += ["", f"Resident memory every {MEMORY_SECONDS / 60:.0f} minutes of the whole: {seen} MB."]
    network.close()
    documents.close()
    print("\n".join(lines))
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
