"""The gaps of a folder of records, each worked out once: a record never changes, and a gap depends
on nothing but its records and the code."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from equivbench.gap.efficiency import PairGap, PairGaps, decided, measure
from equivbench.gap.pairing import ArmRun, MatchedRuns, Pairing
from equivbench.gap.verdicts import Contrast
from equivbench.records.looking import LEAST_KEPT
from equivbench.records.shelf import SEGMENT, Shelf
from equivbench.records.submission import Admitted

Undecided = tuple[PairGap, Contrast]


def gaps_of(admitted: Admitted, pairing: Pairing) -> PairGaps:
    """:func:`equivbench.gap.efficiency.efficiency_gap` of the records that were ``admitted``, whose
    outlines are paired as ``pairing`` says.

    Whole records are read of one gap at a time, and only where it is not in the cache.
    """
    if len(admitted.outlines) < LEAST_KEPT:
        return decided([_measured(admitted, runs) for runs in pairing.matched])
    shelf = Shelf("gaps", os.path.abspath(admitted.path))
    keys = [_key(admitted, runs) for runs in pairing.matched]
    known = dict(_known(shelf, set(keys)))
    new: list[tuple[bytes, bytes]] = []
    for key, runs in zip(keys, pairing.matched, strict=True):
        if key not in known:
            known[key] = _measured(admitted, runs)
            new.append((key, msgspec.json.encode(known[key])))
        if len(new) == SEGMENT:
            shelf.add(new)
            new = []
    shelf.add(new)
    shelf.tidy(known.__contains__)
    return decided([known[key] for key in keys])


def _known(shelf: Shelf, keys: set[bytes]) -> Iterator[tuple[bytes, Undecided]]:
    for key, value in shelf.items():
        if key in keys:
            with contextlib.suppress(msgspec.DecodeError):
                yield key, msgspec.json.decode(value, type=Undecided)


def _measured(admitted: Admitted, runs: MatchedRuns) -> Undecided:
    """The gap of the whole records of ``runs``."""

    def whole(run: ArmRun) -> ArmRun:
        longer = None if run.longer is None else admitted.record(run.longer)
        return ArmRun(admitted.record(run.record), longer)

    read = replace(
        runs,
        equivariant=tuple(map(whole, runs.equivariant)),
        augmented=tuple(map(whole, runs.augmented)),
    )
    found = measure(read)
    return found.gap, found.contrast


def _key(admitted: Admitted, runs: MatchedRuns) -> bytes:
    """The digest of all that the gap of ``runs`` depends on."""
    contents = [
        [admitted.content(record) for record in (run.record, run.longer) if record is not None]
        for own in runs.arms.values()
        for run in own
    ]
    # Those of records that take no part are said in its notes.
    beside = (runs.kernels, runs.seeds, runs.unfinished, runs.repetitions, runs.notes)
    return hashlib.blake2b(msgspec.json.encode((contents, beside)), digest_size=16).digest()
