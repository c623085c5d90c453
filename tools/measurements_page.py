"""Writes the tables of docs/measurements.md that follow from the records: ``python
tools/measurements_page.py``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from blocks import replaced

from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.records.declared import as_declared
from equivbench.records.line_files import KernelSamples
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results
from equivbench.registry import board_units
from equivbench.report.gaps import budget_text, kernels_text, seeds_text
from equivbench.report.kernels import BASE, in_order, speed_up
from equivbench.report.publication import load_kernels
from equivbench.report.render import to_markdown
from equivbench.report.table import Cell, Column, Missing, Table
from equivbench.specs import CONTESTANTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "measurements.md"
OURS = "fused"
RUNS = (
    Column("pair", key=True),
    Column("trained for, on", key=True),
    Column("kernels", key=True),
    Column("machine", key=True),
    Column("commit", key=True, show="needed"),
    Column("seeds"),
    Column("unit"),
    Column("equivariant loss", "number", interval=False),
    Column("augmented loss", "number", interval=False),
    Column("ratio (95% interval)", "number"),
    Column("ratio of seconds a sample", "number"),
    Column("passes over the data"),
    Column("evaluations, off the budget"),
)
KERNELS = (
    Column("case", key=True),
    Column("dtype", key=True, show="differs"),
    Column("mode", key=True),
    Column("machine", key=True),
    Column("fused ms", "number"),
    Column("x e3nn", "number", digits=2),
    Column("x the best other", "number", digits=2),
    Column("that is"),
    Column("of roof", "percent", digits=2),
    Column("bound by"),
)


def with_tables(page: str, results: Path) -> str:
    """``page`` with its tables as the records below ``results`` have them."""
    page = replaced(page, "runs", to_markdown(runs_table(load_results(results))))
    return replaced(page, "kernels", to_markdown(kernels_table(load_kernels(results))))


def runs_table(records: Sequence[RunRecord]) -> Table:
    """A row for each gap of runs as their pair is declared."""
    runs: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        runs[record.contest or record.created].append(record)
    gaps = [gap for gap in efficiency_gap(records) if as_declared(gap.variant)]
    units = board_units()
    return Table("", RUNS, [_run_row(gap, runs, units.get(gap.task, "")) for gap in gaps])


def _run_row(gap: PairGap, runs: dict[str, list[RunRecord]], unit: str) -> list[Cell]:
    own = [
        each
        for contest in gap.contests
        for each in runs[contest]
        if each.pair == gap.pair and each.arm in CONTESTANTS
    ]
    return [
        f"{gap.task}/{gap.pair}",
        f"{budget_text(gap)}, {gap.dataset['name']}",
        kernels_text(gap),
        gap.machine_key,
        (gap.commit or "")[:12],
        seeds_text(gap.n_seeds - gap.n_diverged, gap.n_seeds),
        "" if unit == "1" else unit,
        gap.loss_equivariant,
        gap.loss_augmented,
        gap.loss_ratio,
        gap.throughput_ratio.steady,
        " and ".join(f"{gap.epochs[arm]:.3g}" for arm in CONTESTANTS),
        _range_text([each.clock.evaluate for each in own]),
    ]


def _range_text(seconds: Sequence[float]) -> str:
    low, high = f"{min(seconds):.2g}", f"{max(seconds):.2g}"
    return f"{low} s" if low == high else f"{low} to {high} s"


def kernels_table(samples: Iterable[KernelSamples]) -> Table:
    """A row for each case, mode and machine that ``fused`` was timed on beside e3nn."""
    cases: dict[tuple[str, str, str], list[KernelSamples]] = defaultdict(list)
    for sample in samples:
        place = sample.case, sample.dtype, sample.environment.machine_key
        cases[place].append(sample)
    rows: list[list[Cell]] = []
    for case, dtype, machine in sorted(cases):
        ordered = in_order(cases[case, dtype, machine])
        for ours in (each for each in ordered if each.backend == OURS):
            others = {
                each.backend: speed_up(ours, each)
                for each in ordered
                if each.mode == ours.mode and each.backend != OURS
            }
            best = min(
                (name for name in others if not name.startswith(BASE)),
                key=lambda name: others[name],
                default=None,
            )
            rows.append(
                [
                    case,
                    dtype,
                    ours.mode,
                    machine,
                    1e3 * min(ours.rounds),
                    others.get(BASE),
                    None if best is None else others[best],
                    best,
                    Missing("old roofline") if ours.roofline is None else ours.roofline.fraction,
                    None if ours.roofline is None else ours.roofline.binding,
                ]
            )
    return Table("", KERNELS, rows)


if __name__ == "__main__":
    text = with_tables(PAGE.read_text(encoding="utf-8"), ROOT / "results")
    PAGE.write_text(text, encoding="utf-8")
