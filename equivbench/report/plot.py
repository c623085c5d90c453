"""``equivbench.plot``: the figures of ``equivbench plot``, for Python and notebooks.

Each function returns a matplotlib figure, which a notebook shows, and writes it where ``out`` says;
the command calls the same functions.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from equivbench.budget import Budget
from equivbench.counted import counted
from equivbench.errors import EquivbenchWarning, FailedError, UsageError
from equivbench.gap.campaigns import telling_campaign
from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.frontier import frontiers as find_frontiers
from equivbench.gap.pairing import Setting, pair_up
from equivbench.records.declared import as_declared, effective_variant
from equivbench.records.schema import RunRecord
from equivbench.records.submission import admitted
from equivbench.registry import board_units
from equivbench.report.board import rank_runs
from equivbench.report.figures import (
    draw_curves,
    draw_gap,
    draw_share,
    require_drawable,
    save_figure,
)
from equivbench.report.formats import setting_text
from equivbench.report.frontier_figure import draw_frontier
from equivbench.report.gaps import variant_text
from equivbench.report.race import races_of
from equivbench.report.race_figure import draw_race
from equivbench.request import Forces
from equivbench.specs import EQUIVARIANT, Precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawable = Literal["curves", "gap", "frontier", "share", "race"]
_CHOOSE = "choose by pair, preset, dataset, budget, forces, precision or machine"
RecordSource = str | Path | Iterable[RunRecord]


class FigureOptions(TypedDict, total=False):
    """What every figure can be asked for."""

    out: str | Path | None
    """The file to draw into (svg, png, pdf); None: none."""
    task: str | None
    """Only this task, such as ``forcefield``; the others name a setting likewise."""
    pair: str | None
    preset: str | None
    dataset: str | None
    budget: str | None
    forces: Forces | None
    precision: Precision | None
    """The one that was computed in."""
    machine: str | None
    kernels: str | None
    """Only runs on this kernel backend; of a plain arm that has none on it, all."""
    skip_invalid: bool
    """Leave invalid records out, with a warning each, instead of raising."""


def curves(results: RecordSource = "results", **options: Unpack[FigureOptions]) -> Figure:
    """Draw the loss, the share and the explained variance of both arms of one pair against the
    budget spent.

    Parameters
    ----------
    results
        A results folder, a record file, or records.
    options
        ``out``: the file to draw into (svg, png, pdf). ``task``, ``pair``, ``preset``,
        ``dataset``, ``budget``, ``forces``, ``precision``, ``machine``, ``kernels``: which setting,
        where the results have several.
        ``skip_invalid``: whether invalid records of a folder are left out with a warning.

    Returns
    -------
    matplotlib.figure.Figure
        Thin lines are seeds, the bold line is their mean.

    Raises
    ------
    UsageError
        If several settings fit; the message names them. For a file that cannot be drawn into.
    FailedError
        Without matplotlib, without a record that fits, or for an invalid record.
    """
    return draw("curves", results, **options)


def share(results: RecordSource = "results", **options: Unpack[FigureOptions]) -> Figure:
    """Draw the share of the loss that is a symmetry error against the budget spent, for each kind
    of weights. Takes and raises the same as :func:`curves`."""
    return draw("share", results, **options)


def gap(results: RecordSource = "results", **options: Unpack[FigureOptions]) -> Figure:
    """Draw where the curve of the better arm passes the final loss of the other, which is what s*
    says. Takes and raises the same as :func:`curves`; both arms must have a finished run."""
    return draw("gap", results, **options)


def frontier(results: RecordSource = "results", **options: Unpack[FigureOptions]) -> Figure:
    """Draw the loss of both arms against the budget over all rungs and sizes, the laws fitted to
    them, and where these cross. Takes and raises the same as :func:`curves`; runs of a sweep over
    the size take part."""
    return draw("frontier", results, **options)


def race(results: RecordSource = "results", **options: Unpack[FigureOptions]) -> Figure:
    """Draw the loss of all arms of one task, whichever pair they come from, against the seconds of
    training and against what a prediction costs, averages over rotations included. Takes and raises
    the same as :func:`curves`; one task, data set, preset, budget and machine at a time."""
    return draw("race", results, **options)


def draw(kind: Drawable, results: RecordSource, **options: Unpack[FigureOptions]) -> Figure:
    """The figure of that ``kind``; the rest as in :func:`curves`.

    Runs of a sweep are left out where there are also runs without, but for a frontier. Of several
    campaigns the one that says most is drawn
    (:func:`equivbench.gap.campaigns.campaign_precedence`), and a warning says what was left out.
    """
    out = options.get("out")
    if out is not None:
        require_drawable(Path(out))
    records = _fitting(_records(results, options.get("skip_invalid", False)), options)
    if not records:
        named = results if isinstance(results, str | Path) else "the list of results"
        raise FailedError(f"{named} has no record that fits; `equivbench run` makes some")
    if kind == "frontier":
        figure = _frontier(records)
    elif kind == "race":
        figure = _race(records)
    else:
        figure = _of_one_setting(kind, records)
    if out is not None:
        save_figure(figure, Path(out))
    return figure


def _frontier(records: Sequence[RunRecord]) -> Figure:
    frontiers = find_frontiers(records)
    if len(frontiers.found) > 1:
        names = "; ".join(
            f"{each.task}/{each.pair} on {each.dataset} up to {each.seconds[-1]:g} s, "
            + ", ".join(filter(None, (variant_text(each.variant), each.machine_key)))
            for each in frontiers.found
        )
        raise UsageError(f"a figure shows one frontier; {_CHOOSE} among: {names}")
    if not frontiers.found:
        why = "; ".join(frontiers.left_out) or "no pair has both arms"
        raise FailedError(f"there is no frontier to draw: {why}")
    return draw_frontier(frontiers.found[0], unit=board_units().get(records[0].task, ""))


def _race(records: Sequence[RunRecord]) -> Figure:
    races = races_of(rank_runs(records), records, board_units(), fewest=2)
    if len(races) > 1:
        names = "; ".join(setting_text(each.setting) for each in races)
        raise UsageError(
            f"a figure shows one race; {_CHOOSE.replace('pair', 'task')} among: {names}"
        )
    if not races:
        raise FailedError(
            "there is no race to draw: no setting has two arms; `equivbench run PAIR --arm NAME` "
            "trains a further one"
        )
    return draw_race(races[0])


def _of_one_setting(kind: Drawable, fitting: Sequence[RunRecord]) -> Figure:
    records = _one_setting(fitting)
    drawn = telling_campaign(records)
    if len(drawn) < len(records):
        warnings.warn(
            f"drew {counted(len(drawn), 'record')} of {drawn[0].created[:10]}; left out "
            f"{len(records) - len(drawn)} of another code or day",
            EquivbenchWarning,
            stacklevel=4,
        )
    return _figure(kind, drawn)


def _records(results: RecordSource, skip_invalid: bool) -> list[RunRecord]:
    if isinstance(results, str | Path):
        return admitted(results, invalid="warn" if skip_invalid else "raise")
    return list(results)


def _figure(kind: Drawable, records: Sequence[RunRecord]) -> Figure:
    unit = board_units().get(records[0].task, "")
    if kind == "curves":
        return draw_curves(records, unit=unit)
    if kind == "share":
        return draw_share(records)
    gaps = efficiency_gap(records)
    if not gaps:
        raise pair_up(records).problems[0]
    return draw_gap(gaps[0], records, unit=unit)


def _fitting(records: Sequence[RunRecord], options: FigureOptions) -> list[RunRecord]:
    """The records that fit ``options``."""
    fitting = [
        record
        for record in records
        if all(options.get(name) in (None, value) for name, value in _named(record).items())
    ]
    kernels = options.get("kernels")
    if kernels is None:
        return fitting
    with_kernels = {record.arm for record in fitting if record.model.kernels == kernels}
    chosen = {EQUIVARIANT, *with_kernels}
    return [
        record for record in fitting if record.arm not in chosen or record.model.kernels == kernels
    ]


def _one_setting(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records of the one setting that all have, or that all as declared have."""
    declared = [record for record in records if as_declared(effective_variant(record))]
    fitting = declared or list(records)
    settings = sorted({Setting.of(record) for record in fitting})
    used: dict[str, set[str]] = defaultdict(set)
    for record in fitting:
        used[record.arm].add(record.model.kernels)
    most = max(used.values(), key=len)
    if len(settings) > 1:
        names = "; ".join(setting.text for setting in settings)
        raise UsageError(f"a figure shows one setting; {_CHOOSE} among: {names}")
    if len(most) > 1:
        raise UsageError(
            f"a figure shows one kernel backend; choose by kernels among: {', '.join(sorted(most))}"
        )
    return fitting


def _named(record: RunRecord) -> dict[str, str]:
    """What the options choose by."""
    limit = record.budget.limit if record.budget.extends is None else record.budget.extends
    return {
        "task": record.task,
        "pair": f"{record.task}/{record.pair}",
        "preset": record.preset,
        "dataset": record.dataset.name,
        "budget": Budget(record.budget.kind, limit).text,
        "forces": record.variant.get("forces", ""),
        "precision": record.recipe.precision,
        "machine": record.environment.machine_key,
    }
