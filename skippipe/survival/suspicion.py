"""Who must leave if members can't reach each other: a link that is lost for good stops both its ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping


def to_exclude(suspicions: Mapping[int, Collection[int]]) -> set[int]:
    """Members without whom no member is left that another one suspects; `suspicions` has those of each member.

    As few as picking again and again the one with the most suspicions, of it and by it, finds: a member whose own
    network is broken suspects all others and leaves alone. Of equals the highest number leaves, so that the proposer
    stays. Suspicions of nodes that are no members don't count.
    """
    pairs = {
        frozenset((member, other)) for member, others in suspicions.items() for other in others if other in suspicions
    }
    excluded: set[int] = set()
    while pairs:
        met = Counter(member for pair in pairs for member in pair)
        worst = max(met, key=lambda member: (met[member], member))
        excluded.add(worst)
        pairs = {pair for pair in pairs if worst not in pair}
    return excluded
