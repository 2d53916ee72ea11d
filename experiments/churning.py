"""One training under churn: nodes die at seeded moments, and the run goes on or is begun again from a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import torch
from tqdm import tqdm
from trained import Life, Trained, Way, deaths, emulated_seconds, longest_gap

from benchmarks.disturbing import DisturbedRun
from skippipe.config import RunConfig
from skippipe.errors import UserError
from skippipe.fields import load_config
from skippipe.model.checkpoint import find_latest
from skippipe.replay import LOSS, Recorded, replay
from skippipe.report.metrics import SUMMARY, SurvivalSummary, read_summary
from skippipe.report.views import read_views, view_of
from skippipe.schedule import Plan, Schedule

TICK_S = 0.02
STUCK_S, STUCK_STEPS = 120.0, 20.0
"""A run that ends no iteration for so long in real time, and so many expected steps, is stuck: it is ended."""
OFTEN = 1_000_000
COUNTS = tuple(each.name for each in dataclasses.fields(SurvivalSummary))


@dataclass(frozen=True)
class Work:
    """What is trained, however often nodes die."""

    setting: str
    samples: int
    arguments: tuple[str, ...]
    """A configuration, and fields of it."""

    @property
    def config(self) -> RunConfig:
        """The configuration of its runs."""
        return load_config(RunConfig, Path(self.arguments[0]), self.arguments[1:])

    @property
    def plan(self) -> Plan:
        """The plan that its runs begin with."""
        config = self.config
        return Schedule.load(config.schedule).plan(self.setting, config.schedule)

    @property
    def nodes(self) -> int:
        """Nodes of the schedule."""
        return Schedule.load(self.config.schedule).nodes


class Churn:
    """A training whose nodes die."""

    def __init__(self, work: Work, way: Way, rate: float, seed: int, runs: Path, limit_s: float) -> None:
        """Each node dies with a chance of `rate` an iteration; after `limit_s` real seconds of training it ends."""
        self.work, self.way, self.rate, self.seed = work, way, rate, seed
        self.config, self.nodes = work.config, work.nodes
        self.step_s = work.plan.expected_step_s * self.config.emulation.time_scale
        self.name = f"{way.name.lower()}-{100 * rate:g}-{time.strftime('%d%H%M%S')}"
        self.runs, self.limit_s = runs, limit_s
        self.lives: list[Life] = []
        self.folders: list[Path] = []
        self.resumed: list[Path | None] = []
        """The checkpoint that each start went on from."""
        self.attempts = self.hits = self.stuck = 0
        self.said: list[str] = []

    def train(self) -> Trained:
        """Train to the end, or to the limit."""
        finished = False
        with tqdm(total=self.config.iterations, desc=f"{self.way.name} {self.rate:.0%}", file=sys.stderr) as bar:
            while not finished and self.trained_s() < self.limit_s:
                finished = self.live(bar)
        return self.outcome()

    def trained_s(self) -> float:
        """Real seconds since all nodes first met; RuntimeError if the first start has failed."""
        if not self.lives:
            return 0.0
        if self.lives[0].ready is None:
            raise RuntimeError(f"the run did not begin: {' '.join(self.said)}")
        return time.monotonic() - self.lives[0].ready

    def command(self, folder: Path) -> list[str]:
        """Of the next start, from the newest checkpoint if there is one."""
        restart = 0 if self.way is Way.RESTART else OFTEN
        fields = [f"runs={folder.parent}", f"name={folder.name}", f"peers.restart={restart}"]
        program = [str(common.ROOT / "experiments" / "noted_run.py"), str(losses_of(folder))]
        program.append("redo" if self.way is Way.REDO else "takeover")
        what = ["0", str(self.nodes), self.work.setting, str(self.work.samples), *self.work.arguments, *fields]
        self.resumed.append(self.newest_checkpoint())
        resume = ["--resume", str(self.resumed[-1])] if self.resumed[-1] else []
        return [sys.executable, *program, "run", *what, *resume]

    def newest_checkpoint(self) -> Path | None:
        """That any start has left."""
        for folder in reversed(self.folders):
            with contextlib.suppress(UserError):
                return find_latest(folder).folder
        return None

    def live(self, bar: tqdm[Any]) -> bool:
        """Start the run and let nodes die until it ends; whether all iterations are done."""
        folder = self.runs / f"{self.name}-{len(self.lives)}"
        life, run = Life(time.monotonic()), DisturbedRun.start(self.command(folder), folder)
        self.lives.append(life)
        self.folders.append(folder)
        try:
            self.wait_until_ready(run, life)
            wanted = life.ready is not None and self.disturb(run, life, bar)
        finally:
            was_running = run.process.poll() is None
            run.kill()
            run.look()
            life.ended, life.over = run.ended, time.monotonic()
        if not was_running and run.process.returncode:
            self.said.append(run.last_words())
        return self.is_done() or (wanted and run.process.returncode == 0)

    def is_done(self) -> bool:
        """Whether a checkpoint has all iterations: a run that is killed at its end has nothing left to do."""
        newest = self.newest_checkpoint()
        return newest is not None and find_latest(newest).meta.iteration >= self.config.iterations

    def wait_until_ready(self, run: DisturbedRun, life: Life) -> None:
        """Wait until all nodes have met, or the run has ended."""
        while run.process.poll() is None:
            if run.has_begun(self.nodes):
                life.ready = time.monotonic()
                return
            time.sleep(10 * TICK_S)

    def disturb(self, run: DisturbedRun, life: Life, bar: tqdm[Any]) -> bool:
        """Let nodes die until the run ends; False if it was to be ended before."""
        due: list[tuple[float, int]] = []
        newest, moved = None, time.monotonic()
        while run.process.poll() is None:
            run.look()
            now = time.monotonic()
            if run.newest != newest:
                newest, moved = run.newest, now
                begins = newest + 1 < self.config.iterations
                drawn = deaths(self.rate, self.nodes, self.attempts, self.seed) if begins else []
                self.attempts += begins
                due = sorted([*due, *((now + part * self.step_s, node) for part, node in drawn)]) if begins else []
                bar.n = max(bar.n, newest + 1)
                bar.set_postfix(deaths=self.hits, starts=len(self.lives))
            while due and due[0][0] <= now:
                hit = run.signal(due.pop(0)[1], signal.SIGKILL)
                self.hits += hit
                if hit and self.way is Way.RESTART:
                    return False
            if now - moved > max(STUCK_S, STUCK_STEPS * self.step_s):
                self.stuck += 1
                self.said.append(f"stuck after iteration {newest}: {run.last_words()}")
                return False
            if self.trained_s() > self.limit_s:
                return False
            time.sleep(TICK_S)
        return True

    def outcome(self) -> Trained:
        """What has become of it."""
        first, scale, wanted = self.lives[0].trained_from, self.config.emulation.time_scale, self.config.iterations
        real: list[float | None] = [None] * wanted
        emulated: list[float | None] = [None] * wanted
        losses: list[float | None] = [None] * wanted
        for place, life in enumerate(self.lives):
            for iteration, moment in life.ended.items():
                if real[iteration] is None:
                    real[iteration] = moment - first
                    emulated[iteration] = emulated_seconds(self.lives, place, moment, scale)
        counts = dict.fromkeys(COUNTS, 0.0)
        for folder in self.folders:
            if (noted := losses_of(folder)).exists():
                for iteration, loss in map(json.loads, noted.read_text().splitlines()):
                    losses[iteration] = loss
            if (folder / SUMMARY).exists():
                for name in COUNTS:
                    counts[name] += getattr(read_summary(folder), name)
        last = self.lives[-1].over
        differences = self.replay_differences()
        return Trained(
            way=self.way.name,
            rate=self.rate,
            wanted=wanted,
            real_s=last - first,
            emulated_s=emulated_seconds(self.lives, len(self.lives) - 1, last, scale),
            losses=losses,
            ended_real_s=real,
            ended_emulated_s=emulated,
            deaths=self.hits,
            starts=len(self.lives),
            stuck=self.stuck,
            longest_gap_s=longest_gap(self.lives),
            counts=counts,
            members=self.members(),
            replayed=len(differences),
            replay_difference=max(differences, default=0.0),
            said=self.said,
        )

    def replay_differences(self) -> list[float]:
        """How far each loss of takeover's runs is off from one process's that follows their views.

        Up to where a lost stage is back; without runs that were killed before they had written all that it takes.
        """
        found: list[float] = []
        if self.way is Way.OURS:
            # In a process of its own: this one is to fork runs, and must have no threads of torch's.
            with ProcessPoolExecutor(1) as pool:
                for folder, resumed in zip(self.folders, self.resumed, strict=True):
                    with contextlib.suppress(UserError):
                        found += pool.submit(loss_differences, folder, resumed).result()
        return found

    def members(self) -> float | None:
        """Nodes that did an iteration, mean; without runs that were killed before they had written all views."""
        counts: list[int] = []
        for life, folder in zip(self.lives, self.folders, strict=True):
            with contextlib.suppress(UserError):
                views = read_views(folder)
                counts += [len(view_of(views, iteration).members) for iteration in life.ended]
        return statistics.fmean(counts) if counts else None


def losses_of(folder: Path) -> Path:
    """Where a run notes its losses at once (noted_run.py)."""
    return folder.with_name(f"{folder.name}.losses")


def loss_differences(folder: Path, resumed: Path | None) -> list[float]:
    """Relative differences of a run's losses from a replay of it, which went on from a checkpoint; UserError."""
    torch.set_num_threads(1)
    checkpoint = find_latest(resumed) if resumed else None
    return [found.size for found in replay(folder, Recorded.read(folder), checkpoint) if found.what == LOSS]
