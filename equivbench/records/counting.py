"""Which of several records of one seed counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from equivbench.records.schema import ENDED, RunRecord


def counting_run(runs: Sequence[RunRecord]) -> RunRecord:
    """The one of a seed's ``runs`` (one at least) that counts: in order of time the first that came
    to an end, else the last. A later one is a repetition and replaces nothing."""
    ordered = sorted(runs, key=lambda each: (each.created, each.run_id))
    ended = [run for run in ordered if run.status in ENDED]
    return ended[0] if ended else ordered[-1]


def counting_runs(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Of one arm's ``records`` the run of each seed that counts, by seed."""
    by_seed: dict[int, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_seed[record.seed].append(record)
    return [counting_run(own) for _, own in sorted(by_seed.items())]
