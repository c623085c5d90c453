"""What is left of a run whose worker died: a record of how far it had got."""

from __future__ import annotations

import msgspec

from equivbench.records.reasons import plain_reason
from equivbench.records.schema import ClockRecord, RunRecord
from equivbench.training.heartbeat import Beat

_UNTOLD = "the process died before it could tell"
_UNKNOWN = ("machine_share", "energy_joules")
"""Fields that only the process itself knew."""


def as_failed(record: RunRecord, why: str) -> RunRecord:
    """``record`` as that of a run which failed because of ``why``."""
    attempts = [
        *record.attempts[:-1],
        *(msgspec.structs.replace(last, ended="failed") for last in record.attempts[-1:]),
    ]
    return msgspec.structs.replace(
        record, status="failed", reason=plain_reason(why), attempts=attempts
    )


def record_of_dead(draft: RunRecord, beat: Beat | None, why: str) -> RunRecord:
    """The failed record of a worker that died of ``why``: its last ``draft``, brought up to the
    heartbeat, whose steps no evaluation has seen."""
    untold = dict.fromkeys((*_UNKNOWN, "memory.peak_bytes"), _UNTOLD)
    kept = {
        path: why for path, why in draft.reasons.items() if path.partition(".")[0] not in _UNKNOWN
    }
    record = msgspec.structs.replace(
        as_failed(draft, why),
        reasons={**kept, **untold},
        memory=msgspec.structs.replace(draft.memory, peak_bytes=None),
        **dict.fromkeys(_UNKNOWN),
    )
    if beat is None or beat.step < draft.steps:
        return record
    clock = ClockRecord(**beat.clock, wall=sum(beat.clock.values()))
    samples = beat.step * draft.recipe.batch_size
    budget = draft.budget
    spent = {
        "seconds": clock.train + clock.data,
        "steps": float(beat.step),
        "samples": float(samples),
    }[budget.kind]
    return msgspec.structs.replace(
        record,
        steps=beat.step,
        samples=samples,
        epochs=samples / draft.dataset.sizes["train"],
        restarts=beat.restarts,
        lost_seconds=beat.lost_seconds,
        clock=clock,
        budget=msgspec.structs.replace(
            budget, spent=spent, overshoot=max(0.0, spent - budget.limit)
        ),
    )
