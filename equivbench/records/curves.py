"""The curves of one run: its annealed results by budget, and its un-annealed weights and their
average by step, all on the same part of the test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from equivbench.records.outline import RecordOutline
from equivbench.records.schema import RunRecord, Test

ResultWeights = Literal["annealed", "raw", "ema"]
"""Which weights a result is of: those after the cooldown, which are a budget's result, or those
where it begins, as they are or averaged."""
FINALS: dict[ResultWeights, str] = {"annealed": "final", "raw": "final_raw", "ema": "final_ema"}
"""The field of a record that has the result of each, on the whole test set."""


@dataclass(frozen=True)
class Evaluation:
    """When a run was evaluated, and the result."""

    step: int
    samples: int
    train_seconds: float
    test: Test


def final_of(record: RunRecord, weights: ResultWeights) -> Test | None:
    """The final result of those weights, on the whole test set."""
    found: Test | None = getattr(record, FINALS[weights])
    return found


def is_on_whole_set(record: RunRecord) -> bool:
    """Whether all rungs of ``record`` are read on as many samples and rotations as its final
    result: on the whole test set, not on a part of it."""
    final = record.final
    return final is None or all(
        (rung.test.samples, rung.test.rotations) == (final.samples, final.rotations)
        for rung in record.rungs
    )


def curve(record: RunRecord, weights: ResultWeights = "annealed") -> list[Evaluation]:
    """The curve of ``record``: for annealed weights a point a rung, for others one a trace point.

    Its last annealed point is ``final_on_part``, so that all points are on the same samples.
    """
    if isinstance(record, RecordOutline):
        raise TypeError(f"an outline has no curve; read the record {record.run_id} itself")
    if weights != "annealed":
        return [
            Evaluation(
                point.step,
                point.samples,
                point.train_seconds,
                point.test if weights == "raw" else point.ema,
            )
            for point in record.trace
        ]
    tests = [rung.test for rung in record.rungs]
    if record.final is not None and record.final_on_part is not None:
        tests[-1] = record.final_on_part
    return [
        Evaluation(rung.step, rung.samples, rung.train_seconds, test)
        for rung, test in zip(record.rungs, tests, strict=True)
    ]


def by_place(record: RunRecord, weights: ResultWeights = "annealed") -> dict[float, Evaluation]:
    """The curve of ``record`` by budget, or for weights that are not annealed by step."""
    if weights == "annealed":
        places: list[float] = [rung.budget for rung in record.rungs]
    else:
        places = [point.step for point in record.trace]
    return dict(zip(places, curve(record, weights), strict=True))


def common_curves(
    records: Sequence[RunRecord], weights: ResultWeights = "annealed"
) -> list[list[Evaluation]]:
    """The curves of runs of one setting, cut to what all of them have: the same budgets, or the
    same steps."""
    curves = [by_place(record, weights) for record in records]
    shared = [place for place in (curves[0] if curves else ()) if all(place in c for c in curves)]
    return [[each[place] for place in shared] for each in curves]
