"""A run record in outline: all that a board shows of a run and that runs are paired by, without its
curves and the errors of its test groups, which are nearly all of its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from equivbench.records.schema import RunRecord

SHARED = ("dataset", "matching", "model", "recipe", "variant", "environment", "git", "baselines")
"""Parts that the records of many runs have in common."""
EMPTY = ("trace", "rungs", "devices", "attempts", "reasons", "out_of_distribution")
"""Lists and mappings that are empty in an outline, or may be."""
NAMES = ("preset", "task", "pair", "arm", "command", "created", "contest", "unit")
"""Texts that they have in common."""


class RecordOutline(RunRecord, kw_only=True):
    """A record whose ``trace``, ``rungs``, ``throughput.blocks``, ``inference.twirl``, ``devices``
    and ``attempts`` are empty, whose ``final_on_part`` and ``machine_share`` are null, whose
    evaluations have no ``by`` and ``groups``, and whose ``reasons`` are those that a board shows.

    What boards and pairs read of the parts that are left out is said by the fields below. The
    functions on curves refuse an outline.
    """

    judged_under: str | None
    """The group of rotations of its evaluations; null for a run that ended before the first."""
    disturbance: str | None
    """:func:`equivbench.records.disturbed.disturbance` of the record."""


class SharedParts:
    """Makes outlines share what is equal: the statement of the match, say, of all records of a
    pair. A hundred thousand of them take a fraction of the memory so. They must not be changed."""

    def __init__(self) -> None:
        self._parts: dict[object, Any] = {}

    def share(self, outline: RecordOutline) -> RecordOutline:
        """``outline``, its parts replaced by the equal ones of those before it."""
        for name in SHARED:
            part = getattr(outline, name)
            key = (name, msgspec.json.encode(part))
            setattr(outline, name, self._parts.setdefault(key, part))
        for name in NAMES:
            text = getattr(outline, name)
            setattr(outline, name, self._parts.setdefault(text, text))
        self._share_empty(outline, EMPTY)
        self._share_empty(outline.throughput, ("blocks",))
        self._share_empty(outline.inference, ("twirl",))
        for test in (outline.final, outline.final_raw, outline.final_ema):
            if test is not None:
                self._share_empty(test, ("by", "errors"))
        return outline

    def _share_empty(self, part: object, names: Sequence[str]) -> None:
        """Let the lists and mappings called so be one, where they are empty: they take more than
        a number each."""
        for name in names:
            value = getattr(part, name)
            if not value:
                setattr(part, name, self._parts.setdefault(type(value), value))
