"""What the page shows of kernel samples: a table and a roofline for each machine and precision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from equivbench.records.kernels import MODES, KernelSamples
from equivbench.report.html.boards import element_id
from equivbench.report.html.frame import COLOURS, MARKERS, Key, swatch
from equivbench.report.html.roofline import backend_keys, roofline
from equivbench.report.kernels import BASE, COLUMNS, kernel_rows, speed_up

NEUTRAL = COLOURS - 1
MODE_NAMES = ("forward", "with gradients", "with second gradients")


@dataclass(frozen=True)
class ShownSample:
    """A sample as the table shows it."""

    sample: KernelSamples
    cells: dict[str, str]
    """The cells of the terminal's table, by its columns."""
    speed_up: float | None
    error: float
    swatch: Markup


@dataclass(frozen=True)
class KernelTable:
    """The samples of one machine and precision."""

    id: str
    machine_key: str
    dtype: str
    rows: list[ShownSample]
    roofline: Markup | None
    keys: list[tuple[str, Markup]]
    """The legend: backends by colour."""
    markers: list[tuple[str, Markup]]
    """And modes by marker."""


def show_kernels(samples: Sequence[KernelSamples]) -> list[KernelTable]:
    """A table for each machine and precision; cases by name, then mode, then speed."""
    machines: dict[tuple[str, str], list[KernelSamples]] = defaultdict(list)
    for sample in samples:
        machines[sample.environment.machine_key, sample.dtype].append(sample)
    return [_table(machine, dtype, machines[machine, dtype]) for machine, dtype in sorted(machines)]


def _table(machine: str, dtype: str, samples: list[KernelSamples]) -> KernelTable:
    keys = backend_keys(samples)
    cases: dict[str, list[KernelSamples]] = defaultdict(list)
    for sample in sorted(
        samples, key=lambda one: (one.case, MODES.index(one.mode), min(one.rounds))
    ):
        cases[sample.case].append(sample)
    rows = []
    for case in cases.values():
        base = {one.mode: one for one in case if one.backend == BASE}
        for sample, cells in zip(case, kernel_rows(case), strict=True):
            rows.append(
                ShownSample(
                    sample=sample,
                    cells=dict(zip(COLUMNS, cells, strict=True)),
                    speed_up=speed_up(sample, base[sample.mode]) if sample.mode in base else None,
                    error=max(sample.errors.values(), default=0.0),
                    swatch=swatch(keys[sample.backend, sample.mode]),
                )
            )
    legend = [
        (backend, swatch(keys[backend, MODES[0]]))
        for backend in sorted({one.backend for one in samples})
    ]
    return KernelTable(
        id=element_id("k", machine, dtype),
        machine_key=machine,
        dtype=dtype,
        rows=rows,
        roofline=roofline(f"Roofline of {machine}, {dtype}, both axes logarithmic", samples, keys),
        keys=legend,
        markers=[
            (name, swatch(Key(NEUTRAL, marker, "")))
            for name, marker in zip(MODE_NAMES, MARKERS, strict=False)
        ],
    )
