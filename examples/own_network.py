"""A schedule for your own network: three sites, nine nodes; prints what is expected and draws it.

python examples/own_network.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import skippipe

NETWORK = """
name: three-sites
locations: [Delft, Basel, Oulu]
same_location: {latency_ms: 0.2, bandwidth_gib_s: 1.0}
links:  # from, to, one-way latency in ms, bandwidth in GiB/s
  - [Delft, Basel, 9, 0.10]
  - [Delft, Oulu, 24, 0.05]
  - [Basel, Oulu, 28, 0.04]
compute_seconds_per_sample_layer: {Delft: 0.05, Basel: 0.06, Oulu: 0.09}
"""


def main(folder: Path) -> None:
    """Search a schedule, write it, and show what it promises."""
    folder.mkdir(parents=True, exist_ok=True)
    network = folder / "three-sites.yaml"
    network.write_text(NETWORK)
    config = skippipe.SearchConfig(
        network=str(network),
        nodes=9,
        stages=4,
        stage_sizes=(3, 2, 2, 2),  # stage-0 nodes x (path_length - 1) = nodes of every other stage x (stages - 1)
        path_length=3,  # each microbatch skips one stage of four
        layers_per_stage=2,
        # Small steps, so that the example takes seconds; leave them out and the search uses its time budget.
        trials=500,
        pipeline_steps=5_000,
        path_steps=5_000,
        joint_steps=100_000,
    )
    schedule = skippipe.search(config)
    schedule.save(folder / "schedule.json")
    for setting, plan in schedule.settings.items():
        print(f"{setting:15} iteration {plan.expected_iteration_s:6.2f} s, step {plan.expected_step_s:6.2f} s")
    timeline = schedule.simulate("joint")
    slowest = max(range(schedule.nodes), key=lambda node: sum(s.end_s - s.start_s for s in timeline.of_node(node)))
    print(f"busiest: node {slowest} in {schedule.locations[slowest]}")
    skippipe.draw_gantt(schedule, "joint", folder / "gantt.png")
    print(f"wrote gantt.png and schedule.json to {folder}; train along it with")
    print(f"./run.sh 0 9 joint 8 schedule={folder}/schedule.json model.layers_per_stage=2")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own-network"))
