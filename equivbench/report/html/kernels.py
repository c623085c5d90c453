"""What the page shows of kernel samples: a table and a roofline for each machine and precision.

The roofline is operations a second against operations a byte, below the roof that memory bandwidth
sets.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from equivbench.records.line_files import KernelSamples
from equivbench.report.html.boards import element_id
from equivbench.report.html.charts import (
    BOTTOM,
    COLOURS,
    LEFT,
    MARKERS,
    RIGHT,
    TOP,
    Key,
    chart,
    marker,
    swatch,
)
from equivbench.report.html.scale import LogScale, log_scale, span
from equivbench.report.kernels import in_order, kernel_table
from equivbench.report.render import cell_text
from equivbench.report.table import Cell
from equivbench.report.text import number_text, percent_text
from equivbench.specs import MODES

NEUTRAL = COLOURS - 1
MODE_NAMES = ("forward", "with gradients", "with second gradients")


@dataclass(frozen=True)
class ShownSample:
    """A sample as the table shows it."""

    sample: KernelSamples
    values: dict[str, Cell]
    """The cells of the terminal's table, by the names of its columns."""
    cells: dict[str, str]
    """The same as text."""
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
    for sample in sorted(samples, key=lambda one: one.case):
        cases[sample.case].append(sample)
    rows = []
    for case in cases.values():
        table = kernel_table(case)
        for sample, row in zip(in_order(case), table.rows, strict=True):
            named = {
                column.name: (cell, cell_text(cell, column))
                for cell, column in zip(row, table.columns, strict=True)
            }
            rows.append(
                ShownSample(
                    sample=sample,
                    values={name: cell for name, (cell, _) in named.items()},
                    cells={name: text for name, (_, text) in named.items()},
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


X_LABEL = "useful operations per byte that must move"
Y_LABEL = "useful operations per second"


def backend_keys(samples: Sequence[KernelSamples]) -> dict[tuple[str, str], Key]:
    """A colour for each backend and a marker for each mode, by (backend, mode)."""
    colours = {
        backend: i % COLOURS for i, backend in enumerate(sorted({one.backend for one in samples}))
    }
    markers = dict(zip(MODES, MARKERS, strict=False))
    return {
        (backend, mode): Key(colour, markers[mode], "")
        for backend, colour in colours.items()
        for mode in MODES
    }


def roofline(
    title: str, samples: Sequence[KernelSamples], keys: Mapping[tuple[str, str], Key]
) -> Markup | None:
    """The chart of ``samples`` of one machine; None where none can be drawn.

    The roof is bandwidth times operations per byte, from the slowest to the fastest copy measured
    beside the samples: what lies on it moves each byte once, at the speed of a copy.
    """
    drawn = [
        (one, *_place(one))
        for one in samples
        if one.bytes_fused > 0 and one.operations > 0 and min(one.rounds) > 0
    ]
    roofs = [one.bandwidth for one, _, _ in drawn if one.bandwidth > 0]
    x = log_scale((intensity for _, intensity, _ in drawn), LEFT, RIGHT, room=0.12, least=0.5)
    if x is None:
        return None
    # The whole roof is on the axes, or its ends would be bent onto them.
    corners = [math.log10(roof) + end for roof in roofs for end in (x.low, x.high)]
    y = span(
        [*(math.log10(rate) for _, _, rate in drawn), *corners], BOTTOM, TOP, room=0.04, least=0.5
    )
    assert y is not None  # it holds the rates
    points = [
        marker(
            keys[one.backend, one.mode],
            x(intensity),
            y(rate),
            f"{one.case} {one.mode}, {one.backend}: {number_text(rate / 1e9)} Gop/s, "
            f"{percent_text(one.fraction_of_floor, 2)} of the roof",
        )
        for one, intensity, rate in drawn
    ]
    return chart(title, X_LABEL, Y_LABEL, x, y, [*_roof(roofs, x, y), *points])


def _place(sample: KernelSamples) -> tuple[float, float]:
    """(operations per byte, operations per second)."""
    return sample.operations / sample.bytes_fused, sample.operations / min(sample.rounds)


def _roof(bandwidths: Sequence[float], x: LogScale, y: LogScale) -> list[str]:
    if not bandwidths:
        return []
    low, high = min(bandwidths), max(bandwidths)
    places = ((LEFT, high, x.low), (RIGHT, high, x.high), (RIGHT, low, x.high), (LEFT, low, x.low))
    sides = [
        f"{at} {y.at(math.log10(bandwidth) + intensity):.1f}" for at, bandwidth, intensity in places
    ]
    return [
        f'<path class="roof-band" d="M{"L".join(sides)}z"/>',
        f'<path class="roof" d="M{sides[0]}L{sides[1]}"/>',
        f'<text class="roof-name" x="{LEFT + 8}" y="{TOP + 12}">'
        f"a copy runs at up to {number_text(high / 1e9)} GB/s</text>",
    ]
