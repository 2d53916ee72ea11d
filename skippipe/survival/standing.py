"""What a node knows of the life of others: who is silent, whose process has ended, who has started again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from skippipe.survival.messages import MOST_NODES, Death


class Standing:
    """Suspicions, which may be wrong, and deaths, which are true; a member is a node and the birth of its process."""

    def __init__(self) -> None:
        self.suspected: set[int] = set()
        """Nodes."""
        self.deaths: set[Death] = set()
        self.joining: dict[int, int] = {}
        """The birth of each node's process that asks to join."""
        self.leavers: set[int] = set()
        """Members that know of a newer view, which is without them: they take no part in what leads to it."""
        self.seen: dict[int, int] = {}
        """The largest birth with which a node has been a member."""

    def learn(self, deaths: Iterable[Death]) -> None:
        """Take over what somebody knows, as far as it still matters."""
        self.deaths.update(death for death in deaths if death.birth >= self.seen.get(death.node, -1))

    def gossip(self) -> tuple[Death, ...]:
        """Deaths to tell others, as many as a message holds."""
        return tuple(sorted(self.deaths)[:MOST_NODES])

    def is_news(self, node: int, birth: int) -> bool:
        """Whether a process that asks to join may be alive, as far as we know."""
        deaths = [death.birth for death in self.deaths if death.node == node]
        return birth >= self.seen.get(node, -1) and birth > max(deaths, default=-1)

    def gone(self, members: Mapping[int, int]) -> set[int]:
        """Members that will never answer: they have ended or left, or there is a later process of the same node."""
        ended = {death.node for death in self.deaths if death.birth >= members.get(death.node, death.birth + 1)}
        return ended | self.leavers | {node for node, birth in self.joining.items() if birth > members.get(node, birth)}

    def took_nothing_along(self, members: Mapping[int, int], view: int) -> frozenset[int]:
        """Members of a view whose process has ended and had not begun a newer one: what they knew died with them."""
        return frozenset(
            death.node for death in self.deaths if death.view <= view and members.get(death.node) == death.birth
        )

    def outsiders(self, members: Mapping[int, int], nodes: int) -> list[int]:
        """Nodes that are alive and may not know that they are no members."""
        return sorted(set(range(nodes)) - members.keys() - self.suspected - self.joining.keys())

    def begin_view(self, members: Mapping[int, int], entered: Collection[int]) -> None:
        """Forget what no longer matters when a view begins, into which some have come just now."""
        # Who was left out for a fault that is over, and asked again, must not be left out for it again.
        self.suspected -= set(entered)
        self.seen.update(members)
        self.leavers = set()
        # Whoever this view came too early for need not ask again.
        self.joining = {node: birth for node, birth in self.joining.items() if birth > members.get(node, -1)}
        newest = {death.node: death for death in sorted(self.deaths)}
        self.deaths = {
            death
            for death in self.deaths
            if death.birth >= self.seen.get(death.node, -1) and (death.node in members or death == newest[death.node])
        }
