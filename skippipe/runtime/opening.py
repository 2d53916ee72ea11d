"""How a node opens its links: what it takes and how it writes, as its job and what all do together make it."""

from __future__ import annotations

from skippipe.runtime.gradients import Exchange, Group, largest_message
from skippipe.runtime.job import Job
from skippipe.schedule.compression import compressed_links
from skippipe.transport.all_reduce import PART_NUMBERS
from skippipe.transport.inbox import Inbox
from skippipe.transport.links import Links
from skippipe.transport.message import HEADER, Encoding

SLOWEST_STEP_FACTOR = 10.0
"""A node may work on one thing for this many expected steps before it is taken for hung."""
MOST_AGREEMENT_BYTES = 1 << 22
"""Of a message by which nodes agree on a view, which holds a plan."""


def open_links(job: Job, group: Group, widths: dict[Exchange, int], inbox: Inbox) -> Links:
    """The links to the others, for the inbox and what follows it; `widths` are those of the rows that all share."""
    config, samples = job.config, job.schedule.pipeline.samples_per_microbatch
    compressed = compressed_links(config.compression, job.schedule)[job.node]
    encoding = Encoding[config.compression.encoding.upper()]
    encodings = {other: encoding for other in range(job.schedule.nodes) if compressed[other]}
    activation = HEADER.size + 4 * samples * config.model.context * config.model.d_model
    part = HEADER.size + 4 * PART_NUMBERS
    expected = (largest_message(own) for own in (group.expected(widths), inbox.collectives))
    largest = max(activation, *expected, MOST_AGREEMENT_BYTES, part)
    patience = config.peers.connect_seconds + SLOWEST_STEP_FACTOR * job.plan.expected_step_s * job.time_scale
    return job.endpoint.open_links(inbox, largest, encodings, work_seconds=patience)
