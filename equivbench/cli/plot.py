"""``equivbench plot``: figures of one pair, drawn from records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from equivbench.records.schema import RunRecord

FigureKind = Literal["curves", "gap", "frontier", "share"]
PLANNED = ("frontier", "share")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("plot")(plot)


def plot(
    kind: Annotated[
        FigureKind,
        typer.Argument(
            metavar="KIND",
            help="curves: loss and share against the budget; gap: where one arm passes the other's "
            "final loss; frontier and share are planned and not built yet.",
        ),
    ],
    results: Annotated[Path, typer.Argument(help="A results folder or a record file.")] = Path(
        "results"
    ),
    out: Annotated[Path, typer.Option("--out", help="File to draw into (svg, png or pdf).")] = Path(
        "figure.svg"
    ),
    pair: Annotated[
        str | None, typer.Option(help="Only this pair, such as forcefield/vector.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Only this preset.")] = None,
    budget: Annotated[str | None, typer.Option(help="Only this budget, such as 60s.")] = None,
    machine: Annotated[str | None, typer.Option(help="Only this machine key.")] = None,
    kernels: Annotated[
        str | None, typer.Option(help="Only runs of the equivariant arm on this kernel backend.")
    ] = None,
) -> None:
    """Draw a figure of one pair under one setting, from its records.

    Runs of a sweep are left out where the folder also has runs without. Needs matplotlib, which
    comes with `pip install 'equivbench[plots]'`.
    """
    from equivbench.cli.output import message
    from equivbench.errors import UsageError
    from equivbench.records.submission import admitted
    from equivbench.report.figures import require_drawable, save_figure

    if kind in PLANNED:
        raise UsageError(f"`plot {kind}` is planned and not built yet; there are curves and gap")
    require_drawable(out)
    wanted = {"pair": pair, "preset": preset, "budget": budget, "machine": machine}
    records = _one_setting(admitted(results, invalid="warn"), wanted, kernels, results)
    message("note", f"drew {save_figure(_draw(kind, records), out)}")


def _draw(kind: FigureKind, records: list[RunRecord]) -> Figure:
    from equivbench.gap.efficiency import efficiency_gap
    from equivbench.gap.pairing import pair_up
    from equivbench.registry import TASKS
    from equivbench.report.figures import draw_curves, draw_gap

    task = TASKS.entries().get(records[0].task)
    unit = "" if task is None else task.value.board_unit
    if kind == "curves":
        return draw_curves(records, unit=unit)
    gaps = efficiency_gap(records)
    if not gaps:
        raise pair_up(records).problems[0]
    return draw_gap(gaps[0], records, unit=unit)


def _one_setting(
    records: list[RunRecord],
    wanted: dict[str, str | None],
    kernels: str | None,
    results: Path,
) -> list[RunRecord]:
    """The records of the one setting that fits ``wanted``, where several would fit of the one
    without a sweep."""
    from equivbench.errors import FailedError, IncomparableError
    from equivbench.gap.pairing import EQUIVARIANT, Setting

    fitting = [
        record
        for record in records
        if all(value in (None, _named(record)[name]) for name, value in wanted.items())
        and (kernels is None or record.arm != EQUIVARIANT or record.model.kernels == kernels)
    ]
    if not fitting:
        raise FailedError(f"{results} has no record that fits; `equivbench run` makes some")
    plain = [record for record in fitting if "sweep" not in record.variant]
    fitting = plain or fitting
    settings = sorted({Setting.of(record) for record in fitting})
    backends = sorted({record.model.kernels for record in fitting if record.arm == EQUIVARIANT})
    if len(settings) > 1:
        names = "; ".join(setting.text for setting in settings)
        raise IncomparableError(
            "a figure shows one setting; choose with --pair, --preset, --budget or --machine "
            f"among: {names}"
        )
    if len(backends) > 1:
        raise IncomparableError(
            f"a figure shows one kernel backend; choose with --kernels among: {', '.join(backends)}"
        )
    return fitting


def _named(record: RunRecord) -> dict[str, str]:
    """What the options choose by."""
    from equivbench.request import Budget

    limit = record.budget.limit if record.budget.extends is None else record.budget.extends
    return {
        "pair": f"{record.task}/{record.pair}",
        "preset": record.preset,
        "budget": Budget(record.budget.kind, limit).text,
        "machine": record.environment.machine_key,
    }
