"""How this machine's nodes get into a run: by themselves, by --join, by an invitation, or as those that invite."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skippipe.cli.hosting import host_run
from skippipe.cli.invitation import Invitation, hide_argument
from skippipe.cli.invited import Invited, accept
from skippipe.cli.joining import find_run
from skippipe.cli.launch import Company
from skippipe.cli.prepare import config_from_arguments, prepare_here
from skippipe.config import DataConfig, RunConfig
from skippipe.errors import UserError
from skippipe.report.run_folder import make_run_folder
from skippipe.runtime.offer import make_desk
from skippipe.schedule import Schedule
from skippipe.schedule.file import find_schedule

if TYPE_CHECKING:
    from skippipe.data.prepared import Prepared


@dataclass(frozen=True)
class Entry:
    """Of the nodes of one command."""

    joins: bool = False
    """Whether the run goes on without them."""
    invitation: Invitation | None = None
    """That they show to others, or that they have followed."""
    invited: Invited | None = None
    """What came with the one that they have followed."""

    @property
    def hosts(self) -> bool:
        """Whether these nodes are the first that invite."""
        return self.invitation is not None and self.invited is None

    @property
    def python(self) -> str | None:
        """The Python version of another machine whose library is the text, if so."""
        return self.invited.offer.python if self.invited and self.invited.offer.tokens.bytes else None

    def find_folder(self, config: RunConfig, setting: str, nodes: int, local: range) -> Path:
        """The run's folder; UserError if there can't be one."""
        if self.joins and self.invited is None:
            return find_run(config, setting, nodes, local)
        # Who follows an invitation again, or shares the folder with the inviting machine, finds one.
        return make_run_folder(config, setting, local.start, joins=self.invited is not None)

    def prepare(self, config: DataConfig) -> Prepared:
        """The text that is trained on."""
        return prepare_here(config) if self.invited is None else self.invited.prepare(config)

    def company(
        self, config: RunConfig, schedule: Schedule, setting: str, name: str, prepared: Prepared, local: range
    ) -> Company:
        """How the nodes come together with others, who may follow an invitation; `name` is the run folder's."""
        if self.invitation is None:
            return Company(self.joins)
        from skippipe.runtime.meeting import Meeting

        samples, file = schedule.pipeline.samples_per_microbatch, find_schedule(config.schedule)
        desk = make_desk(config, setting, samples, name, prepared, file, local, schedule.nodes, self.python)
        return Company(self.joins, Meeting((), self.invitation.key), desk)


def enter(arguments: argparse.Namespace, local: range, samples: int) -> tuple[RunConfig, Entry]:
    """The configuration of a command's nodes and their way into the run; UserError if there is none."""
    if arguments.host:
        config, invitation = host_run(arguments, local.start)
        return config, Entry(invitation=invitation)
    if arguments.join and "://" not in arguments.join:
        # --join alone, and behind it what it might have been given.
        arguments.overrides.append(arguments.join)
        arguments.join = ""
    if arguments.evaluate and arguments.join is not None:
        raise UserError("--join: an evaluation can't be joined; leave one of --join and --evaluate out")
    if not arguments.join:
        return config_from_arguments(arguments.overrides), Entry(joins=arguments.join is not None)
    hide_argument(arguments.join.partition("#")[2])
    invitation = Invitation.parse(arguments.join)
    invited = accept(invitation, local, arguments.setting, samples, arguments.overrides)
    return invited.config, Entry(invited.has_begun, invitation, invited)
