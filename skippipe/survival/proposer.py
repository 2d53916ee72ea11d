"""What the member with the lowest number is besides: it begins ballots and carries them through."""

from __future__ import annotations

from collections.abc import Iterable

from skippipe.survival.acceptor import Acceptor
from skippipe.survival.ballot import Ballot, Pauses, next_number, suffices
from skippipe.survival.messages import Accept, Accepted, Decided, Prepare, Promise, Proposal, Reject


class Proposer(Acceptor):
    """A member's ballot, from the question to the decision."""

    def counted_dead(self) -> frozenset[int]:
        """Members that count as dead in the quorums of a ballot that begins now."""
        return self.standing.took_nothing_along(self.births, self.number)

    def is_quorum(self, responders: Iterable[int], dead: frozenset[int]) -> bool:
        """Whether these members may decide."""
        return suffices(set(responders), self.births.keys(), dead)

    def begin_ballot(self) -> None:
        """Ask all members that may be alive for promise and report."""
        number = next_number(self.node, max(self.promised, self.highest))
        self.ballot = Ballot(number, self.has_losses, self.counted_dead(), Pauses(self.now))
        self.carry(self.ballot)

    def carry(self, ballot: Ballot) -> None:
        """Take the ballot's next step if it can be taken, and repeat what was not answered."""
        if ballot.proposal is None and self.has_losses and not ballot.urgent:
            ballot.urgent, ballot.pauses = True, Pauses(self.now)
            ballot.promises.clear()
        answered = ballot.answered
        is_quorum = self.is_quorum(answered, ballot.dead)
        may_come = self.is_quorum((self.reachable | answered) - ballot.refused, ballot.dead)
        if is_quorum and ballot.proposal is not None and self.node in answered:
            self.decide(ballot.proposal)
        elif is_quorum and self.reachable <= answered:
            ballot.proposal = ballot.forced() or self.make_proposal(ballot)
            ballot.pauses = Pauses(self.now)
            self.carry(ballot)
        elif may_come and self.node not in ballot.refused:
            if ballot.pauses.elapsed(self.now):
                self.repeat(ballot)
        elif ballot.dead != self.counted_dead():
            self.begin_ballot()
        elif ballot.refused:
            self.make_way()
        elif ballot.pauses.elapsed(self.now):
            self.repeat(ballot)

    def repeat(self, ballot: Ballot) -> None:
        """Send what the ballot is at to all that have not answered and are not gone."""
        message: Prepare | Accept = Prepare(self.number, ballot.number, ballot.urgent, self.standing.gossip())
        if ballot.proposal is not None:
            message = Accept(self.number, ballot.number, ballot.proposal)
        for member in sorted(self.births.keys() - ballot.answered - ballot.refused - self.standing.gone(self.births)):
            self.send(member, message)

    def make_proposal(self, ballot: Ballot) -> Proposal:
        """What the application makes of the reports."""
        gone = self.standing.gone(self.births)
        reports = {member: ballot.promises[member].report for member in sorted(ballot.promises.keys() - gone)}
        value = self.application.propose(reports, frozenset(self.births.keys() - reports.keys()))
        births = self.standing.joining | {member: self.births[member] for member in reports}
        return Proposal(tuple((node, births[node]) for node in sorted(self.application.members_of(value))), value)

    def decide(self, proposal: Proposal) -> None:
        """The next view begins. It may be without us, if another had proposed it."""
        self.take_decided(Decided(self.number + 1, proposal))
        for member in sorted(dict(proposal.members).keys() - {self.node}):
            self.tell(member)

    def take_decided(self, message: Decided) -> None:
        """Begin a newer view that names us; end if it does not."""
        raise NotImplementedError

    def take_promise(self, sender: int, message: Promise) -> None:
        """Count it if it answers what the ballot asks now."""
        self.standing.learn(message.deaths)
        ballot = self.ballot
        if ballot is None or message.ballot != ballot.number or ballot.proposal is not None:
            return
        if message.urgent or not ballot.urgent:
            ballot.promises[sender] = message

    def take_reject(self, sender: int, message: Reject) -> None:
        """Make way for a higher ballot; or do without a member that can't take the value."""
        ballot = self.ballot
        if ballot is None or message.ballot != ballot.number:
            return
        if message.promised > ballot.number:
            self.highest = max(self.highest, message.promised)
            self.make_way()
        else:
            ballot.refused.add(sender)

    def take_accepted(self, sender: int, message: Accepted) -> None:
        """Count it if it is of our ballot."""
        if self.ballot is not None and message.ballot == self.ballot.number and self.ballot.proposal is not None:
            self.ballot.accepted.add(sender)
