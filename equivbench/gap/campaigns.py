"""Which contests are one measurement: those of one code, with no long pause between them; and which
of several measurements of one thing counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from equivbench.records.disturbed import disturbance
from equivbench.records.schema import ENDED, RunRecord
from equivbench.specs import CONTESTANTS

CAMPAIGN_GAP = timedelta(hours=12)
"""Contests that began further apart than this, with none between them, are not one measurement."""
LEAD_SEEDS = 3
"""There is no verdict below this many paired seeds."""


def campaigns(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """``records`` in parts that may be pooled, oldest first: of one code, and with no more than
    :data:`CAMPAIGN_GAP` between a contest and the next."""
    contests: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        contests[code_of(record), contest_of(record)].append(record)
    began = {
        key: min(datetime.fromisoformat(each.created) for each in own)
        for key, own in contests.items()
    }
    found: list[list[RunRecord]] = []
    last: tuple[str, str] | None = None
    for key in sorted(contests, key=lambda key: (key[0], began[key], key[1])):
        if last is None or last[0] != key[0] or began[key] - began[last] > CAMPAIGN_GAP:
            found.append([])
        found[-1] += contests[key]
        last = key
    return sorted(found, key=lambda own: min(each.created for each in own))


def campaign_precedence(seeds: int, disturbed: bool) -> tuple[bool, int, bool]:
    """By what one of several campaigns under one setting is taken, the highest: whether it has
    ``seeds`` enough for a verdict and had its machine, then its seeds, then whether it had its
    machine. Of equals the newest is taken.

    Who leads and how the runs ended have no part in it, and a single later record, whoever made it,
    does not take the place of a measurement.
    """
    return seeds >= LEAD_SEEDS and not disturbed, seeds, not disturbed


def telling_campaign(
    records: Sequence[RunRecord], holding: Collection[str] = ()
) -> list[RunRecord]:
    """The first campaign of ``records`` by :func:`campaign_precedence`; among those that have one
    of the contests ``holding``, where one has."""
    found = campaigns(records)
    held = [own for own in found if any(contest_of(each) in holding for each in own)]
    return max(reversed(held or found), key=_precedence)


def _precedence(records: Sequence[RunRecord]) -> tuple[bool, int, bool]:
    """Its seeds are those that both contestants came to an end of, where there are both, and its
    machine that of their runs."""
    ended = [each for each in records if each.status in ENDED]
    of_arms = {arm: [each for each in ended if each.arm == arm] for arm in CONTESTANTS}
    counted = ended
    if all(of_arms.values()):
        shared = set.intersection(*({each.seed for each in own} for own in of_arms.values()))
        counted = [each for own in of_arms.values() for each in own if each.seed in shared]
    seeds = {each.seed for each in counted}
    return campaign_precedence(len(seeds), any(disturbance(each) is not None for each in counted))


def code_of(record: RunRecord) -> str:
    """What tells the code of a run apart: its version, and whether that had been changed."""
    changed = " changed" if record.git.dirty else ""
    return f"{record.git.version}{changed}"


def contest_of(record: RunRecord) -> str:
    """What the records of the arms of one contest share. Those that do not name it share the
    second in which it began."""
    return record.contest or record.created
