"""A node's process in training, from its beginning to its end."""

from __future__ import annotations

import hashlib
import logging
import time

import torch

from skippipe.errors import CutOffError, LeftOutError
from skippipe.model.stage import Stage
from skippipe.runtime.job import Job
from skippipe.runtime.joining import join
from skippipe.runtime.share import take_device, take_threads
from skippipe.runtime.worker import Worker
from skippipe.transport.inbox import PeerLostError

logger = logging.getLogger(__name__)


def run_worker(job: Job) -> None:
    """Train one node to the end (in a process of its own)."""
    take_threads(job.config.threads, job.endpoint, job.config.emulation.enabled)
    take_device(job.device, job.node)
    started = time.monotonic()
    worker = Worker(job)
    try:
        if worker.joins:
            join(worker)
        else:
            worker.meet()
        train(worker, started)
    except PeerLostError as error:
        if worker.survivors.is_left_out:
            raise LeftOutError(str(error)) from None
        worker.save_what_is_left()
        if worker.survivors.in_reach:
            raise CutOffError(str(error)) from None
        raise


def train(worker: Worker, started: float) -> None:
    """Train to the end; the process began at a monotonic time."""
    node = worker.job.node
    logger.info("node %d ready in %.1f s: stage %d", node, time.monotonic() - started, worker.shard.index)
    worker.train()
    worker.close()
    digest = weights_digest(worker.shard.stage)
    logger.info("node %d done: %d bytes sent, weights %s", node, worker.links.bytes_sent, digest)
    worker.drops.check()


def weights_digest(stage: Stage) -> str:
    """Hash of a shard's weights; replicas of a stage must show the same one."""
    digest = hashlib.sha256()
    for parameter in stage.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
