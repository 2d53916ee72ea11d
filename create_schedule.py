"""Search a schedule and write it as JSON: nodes to stages, paths and orders for every setting.

    python create_schedule.py [--config FILE] [--out schedule.json] [--plot] [--<hyperparameter> VALUE ..]

Edit the block below, or put any of its fields into a YAML file, or give them as flags, which win.
"""

from __future__ import annotations

import sys
from typing import Any

from skippipe.__main__ import run_command
from skippipe.cli import search

HYPERPARAMETERS: dict[str, Any] = {
    # The peers and their links.
    "nodes": 20,  # peers that train together
    "network": "gcp-12",  # configs/networks/<name>.yaml (gcp-12, gcp-12-as-published) or your own YAML file
    "subset": None,  # subset of the network's locations: 5-clusters or single-cluster of gcp-12; None: all locations
    "locations": [],  # location of each node, one name a node; empty: round and round over the network's list
    # How the model is cut. a = nodes of stage 0, b of every other stage: a x (path_length - 1) = b x (stages - 1).
    "stages": 6,  # parts of the model; more parts need less memory a node and make more hops
    "stage_sizes": [5, 3, 3, 3, 3, 3],  # nodes of each stage; stage 0 also reads the data and computes the loss
    "path_length": 4,  # stages that a microbatch visits, stage 0 among them; 4 of 6 skips 33%
    "memory": 3,  # microbatches that a node can hold; more overlap, more memory
    # The model's stage and the batch: what a forward and a hop take.
    "layers_per_stage": 4,  # decoder layers; forward_s = seconds per sample and layer of the network x samples x layers
    "d_model": 1024,  # width of the residual stream; bytes of a hop = 4 x d_model x context x samples
    "heads": 16,  # attention heads; kept in the file for the runtime
    "context": 1024,  # tokens in a sequence
    "samples_per_microbatch": 8,  # sequences in a microbatch; more: fewer, longer tasks and hops
    "microbatches_per_node": 6,  # microbatches that each stage-0 node sends in an iteration; a multiple of memory
    "feed_forward": None,  # hidden width of a layer's feed-forward part; None: 4 x d_model
    "vocabulary": 2048,  # tokens that embedding and head know; counts if sync_head
    "sync_head": False,  # True: the sync of stage 0 moves embedding, norm and head, too; the original leaves them out
    # What machines and links take; None: as the network's file says (measured by `skippipe profile`).
    "hop_fixed_s": None,  # seconds of a hop beside latency and bytes / bandwidth; gcp-12: 0.35, GPU copies
    "task_gap_s": None,  # idle seconds of a node between two tasks; gcp-12: 0.13
    "backward_factor": None,  # backward over forward; gcp-12: 1.5
    "loss_factor": None,  # loss over forward; gcp-12: 0.25; a network may give seconds instead
    "sync_bytes_per_parameter": None,  # bytes that an all-reduce moves over a stage's slowest link; gcp-12: 8
    "queueing": None,  # what messages wait for: "none", "link" (a link carries one after the other), "uplink"
    "hop_encoding": "fp32",  # how the run will write activations and gradients: fp32, bf16 or int8 (fewer bytes)
    "sync_encoding": "fp32",  # how it will write the gradients of its syncs; run.sh must be told the same two
    # The search.
    "method": "ours",  # of the partial settings: "paper" (GCMA's stages, A* and CBS, no annealing) or "ours" (annealed)
    "settings": [],  # what to search: some of baseline, random, non-ca-partial, ca-partial, joint; empty: all of them
    "population": 200,  # assignments that the genetic algorithm keeps; more: wider, slower
    "trials": 8000,  # offspring that it breeds; more: better stages, longer
    "sync_slack": 2.0,  # how many times GCMA's the sync of a stage may last; more: faster iterations, slower syncs
    "constraint_sets": 2000,  # constraint sets that conflict-based search expands; more: better paths, longer
    "pipeline_steps": 10000000,  # most moves of a chain on paths that an origin's microbatches share; 100,000 a second
    "path_steps": 10000000,  # most on a path for each microbatch, and on stages; 25,000 a second at 20 nodes
    "joint_steps": 100000000,  # most moves of each chain of `joint`; 250,000 a second at 20 nodes
    "robust": 0.0,  # error of the links that `joint` prepares for: 0.1 takes the mean over links off by +-10%; 0: none
    "chains": None,  # annealings side by side; None: one a core, or two without a time budget
    "seed": 0,  # of every random choice: with time_budget_s None the same seed and steps give the same file
    "time_budget_s": 60.0,  # seconds for everything; None: only the steps end it (lower them), and a seed repeats it
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for a mistake of the user."""
    return run_command(search, "create_schedule.py", arguments, HYPERPARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
