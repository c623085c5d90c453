"""All that a results folder has to show, made once, as data: boards, curves, gaps, kernels, each
with its provenance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from equivbench.errors import FailedError
from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.gap.pairing import pair_up
from equivbench.records.files import read_bounded
from equivbench.records.line_files import KERNEL_FILE, KernelSamples
from equivbench.records.schema import RunRecord
from equivbench.records.store import InvalidRecordWarning
from equivbench.records.submission import admitted, review
from equivbench.report.board import Board, build_boards, finished_runs, rank_runs
from equivbench.report.curves import Curve, curve_points
from equivbench.report.provenance import Provenance, provenance

KERNELS = "kernels.jsonl"


@dataclass(frozen=True)
class PublishedGap:
    """A gap (per pair, setting and kernel backend) with the runs of both arms behind it."""

    gap: PairGap
    unit: str
    """Of the losses; empty where the task is not known."""
    provenance: Provenance


@dataclass(frozen=True)
class Publication:
    """What a page about results shows. Rows of ``boards`` carry their own provenance, as do kernel
    samples."""

    boards: tuple[Board, ...]
    curves: tuple[Curve, ...]
    """One a row of ``boards``, in the same order."""
    gaps: tuple[PublishedGap, ...]
    """Leads are corrected over all of them (Holm)."""
    left_out: tuple[str, ...]
    """Why settings of which only one arm is there, or no common seed, have no gap: a sentence
    each."""
    kernels: tuple[KernelSamples, ...]
    """By machine, case, mode and backend. ``min(rounds)`` are the seconds; ``operations`` over
    these against ``operations / bytes_fused`` is the place on the roofline, ``bandwidth`` the slope
    of its roof."""


def publish(
    results: str | Path,
    *,
    units: Mapping[str, str] | None = None,
    invalid: Literal["raise", "warn"] = "raise",
) -> Publication:
    """The publication of the records at or below ``results`` and of the ``kernels.jsonl`` among
    them.

    ``units`` gives the board unit of each task. An invalid file raises ``FailedError`` naming it,
    or with ``invalid="warn"`` is left out with a warning.
    """
    return make_publication(
        admitted(results, invalid=invalid),
        load_kernels(Path(results), invalid=invalid),
        units=units,
    )


def make_publication(
    records: Sequence[RunRecord],
    kernels: Sequence[KernelSamples] = (),
    *,
    units: Mapping[str, str] | None = None,
) -> Publication:
    """The publication of ``records`` and ``kernels``; raises ``FailedError`` as
    :func:`build_boards` does."""
    units = dict(units or {})
    boards = build_boards(records, units)
    ranked = rank_runs(records)
    curves = [
        Curve(setting, row, curve_points(finished_runs(runs)))
        for setting, rows in ranked.items()
        for row, runs in rows
    ]
    pairing = pair_up(records)
    gaps = [
        PublishedGap(
            gap,
            units.get(gap.task, ""),
            provenance([run.record for run in (*comparison.equivariant, *comparison.augmented)]),
        )
        for gap, comparison in zip(efficiency_gap(records), pairing.matched, strict=True)
    ]
    return Publication(
        tuple(boards),
        tuple(curves),
        tuple(gaps),
        tuple(map(str, pairing.problems)),
        tuple(sorted(kernels, key=_place)),
    )


def load_kernels(
    results: Path, *, invalid: Literal["raise", "warn"] = "raise"
) -> list[KernelSamples]:
    """The samples of every ``kernels.jsonl`` below the folder ``results`` (none below a file),
    hidden ones left out.

    A file in which :func:`equivbench.records.submission.review` finds anything wrong raises
    ``FailedError``, or with ``invalid="warn"`` is left out with a warning; a link is not followed.
    """
    samples: list[KernelSamples] = []
    for file in sorted(results.rglob(KERNELS)):
        if any(part.startswith(".") for part in file.relative_to(results).parts):
            continue
        try:
            samples += _admitted_samples(file)
        except FailedError as error:
            if invalid == "raise":
                raise
            warnings.warn(f"left out: {error}", InvalidRecordWarning, stacklevel=2)
    return samples


def _admitted_samples(file: Path) -> list[KernelSamples]:
    read_bounded(file, follow=False)
    (report,) = review([file])
    if report.problems:
        raise FailedError(
            f"{report.path}: {report.problems[0]}; "
            "`equivbench results validate` says all that is wrong"
        )
    return KERNEL_FILE.read(file)


def _place(sample: KernelSamples) -> tuple[str, ...]:
    return (sample.environment.machine_key, *sample.key, sample.dtype)
