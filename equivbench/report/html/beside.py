"""What stands beside the boards on the page: races, frontiers, verdicts on claims, kernels,
pretrained networks and ladders, each as cards for the templates."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup

from equivbench.gap.frontier import PairFrontier
from equivbench.gap.intervals import Quantity
from equivbench.gap.loss_law import FlooredPowerLaw
from equivbench.records.ladder import LadderEntry
from equivbench.records.line_files import KernelSamples, of_newest_code
from equivbench.records.pretrained import PretrainedMeasurement
from equivbench.report.frontier import crossing_sentence, fitted_law, frontier_table
from equivbench.report.gaps import variant_text
from equivbench.report.html.charts import (
    COLOURS,
    MARKERS,
    Key,
    Point,
    Series,
    backend_keys,
    line_chart,
    roofline,
    swatch,
)
from equivbench.report.kernels import in_order, kernel_table
from equivbench.report.race import Race, race_table
from equivbench.report.render import cell_text, row_texts, to_json
from equivbench.report.table import Cell, Column, Missing, Table
from equivbench.report.text import printable
from equivbench.specs import MODES

M = TypeVar("M", bound=PretrainedMeasurement | LadderEntry)
NEUTRAL = COLOURS - 1
NOTE = "note"
"""The column whose texts are told below the rows."""
MODE_NAMES = ("forward", "with gradients", "with second gradients")
BEYOND = 4.0
"""How far beyond the largest budget a law is drawn."""
LAW_POINTS = 24


def element_id(prefix: str, *parts: object) -> str:
    """An id that stays the same from page to page as long as ``parts`` do, and holds nothing of
    their text."""
    return prefix + hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()[:8]


def clean(text: str) -> str:
    """``text`` as the board has it: printable, without blanks round it."""
    return printable(text).strip()


def table_card(table: Table, prefix: str, *parts: object) -> dict[str, Any]:
    """``table`` for the templates: its columns, how each sorts, and the cells of its rows. What its
    column ``note`` holds is told below each row."""
    shown = table.shown()
    told = [place for place, column in enumerate(shown.columns) if column.name == NOTE]
    places = [place for place in range(len(shown.columns)) if place not in told]
    columns = [
        {
            "name": shown.columns[place].name,
            "title": shown.columns[place].title,
            "sort": "number" if all(_is_number(row[place]) for row in shown.rows) else "text",
        }
        for place in places
    ]
    rows = []
    for row in shown.rows:
        cells = [_cell(row[place], shown.columns[place]) for place in places]
        note = " ".join(cell_text(row[place], shown.columns[place], "") for place in told)
        rows.append({"cells": [*zip(columns, cells, strict=True)], NOTE: note})
    return {
        "id": element_id(prefix, *parts),
        "title": table.title,
        "caption": table.caption,
        "columns": columns,
        "rows": rows,
        "notes": table.notes,
    }


def _is_number(cell: Cell) -> bool:
    """Whether it is one, or says that there is none."""
    return cell is None or (
        isinstance(cell, (int, float, Quantity, Missing)) and not isinstance(cell, bool)
    )


def _cell(cell: Cell, column: Column) -> dict[str, Any]:
    """Its text, of a quantity without its interval, that interval, and the number it sorts by."""
    point, bracket, interval = cell_text(cell, column), "", ""
    if isinstance(cell, Quantity):
        point, bracket, interval = point.partition(" (")
        value = cell.value
    else:
        value = cell if isinstance(cell, (int, float)) else None
    return {"text": point, "interval": bracket.strip() + interval, "value": value}


def machine_cards(
    prefix: str, lines: Sequence[M], table_of: Callable[[Sequence[M]], Table]
) -> list[dict[str, Any]]:
    """A table for each machine of ``lines``; ids begin with ``prefix``."""
    machines: dict[str, list[M]] = defaultdict(list)
    for line in lines:
        machines[line.environment.machine_key].append(line)
    return [
        {
            **table_card(table_of(own), prefix, machine),
            "machine_key": machine,
            "commands": sorted({line.command for line in own}),
        }
        for machine, own in sorted(machines.items())
    ]


def race_cards(races: Iterable[Race]) -> list[dict[str, Any]]:
    """A table for each of ``races``, with the commands that made its rows."""
    return [
        {
            **table_card(race_table(race), "r", race.setting),
            "setting": race.setting,
            "commands": sorted(
                {command for each in race.rows for command in each.row.provenance.commands}
            ),
        }
        for race in races
    ]


def frontier_cards(
    frontiers: Iterable[PairFrontier], unit_of: Callable[[str], str], *, charts: bool
) -> list[dict[str, Any]]:
    """Of each of ``frontiers`` a table, a sentence and, with ``charts``, its figure, whose curves
    belong to the rows of the arms (the id of the card, a dash and their place); ``unit_of`` gives
    the unit of a task's loss, or nothing."""
    found = []
    for each in frontiers:
        kernels = " / ".join(dict.fromkeys(each.kernels.values()))
        parts = (each.preset, variant_text(each.variant), each.dataset, f"{kernels} kernels")
        data = (each.dataset_sha256, sorted(each.sizes.items()), each.rules_version)
        identity = (each.task, each.pair, each.machine_key, *parts, data, each.seconds)
        card = table_card(frontier_table([each]), "f", *identity)
        unit = unit_of(each.task)
        found.append(
            {
                **card,
                "frontier": each,
                "setting": ", ".join(filter(None, parts)),
                "sentence": crossing_sentence(each),
                "chart": _frontier_chart(each, unit, card["id"]) if charts else None,
                "keys": [(swatch(_arm_key(place)), arm) for place, arm in enumerate(each.arms)],
            }
        )
    return found


def _arm_key(place: int, dashes: str = "solid") -> Key:
    return Key(place, [*MARKERS][place % len(MARKERS)], dashes)


def _frontier_chart(found: PairFrontier, unit: str, name: str) -> Markup | None:
    """The losses of the best sizes as points with their intervals as bands, the laws as lines that
    are dashed beyond the largest budget."""
    last = found.seconds[-1]
    spans = ((found.seconds[0], last, "solid"), (last, BEYOND * last, "dashed"))
    series = []
    for place, (arm, frontier) in enumerate(found.arms.items()):
        row, law = f"{name}-{place}", fitted_law(frontier)
        measured = _points(zip(found.seconds, frontier.losses, strict=True))
        series.append(Series(arm, _arm_key(place), measured, row, line=False))
        if law is None:
            continue
        for begin, end, dashes in spans:
            points = _law_points(law, begin, end)
            series.append(Series(arm, _arm_key(place, dashes), points, row, marks=False))
    title = f"{found.task}/{found.pair}: test loss against device seconds, both logarithmic"
    against = f"test loss [{unit}]" if unit else "test loss"
    return line_chart(title, "device seconds", against, series)


def _points(losses: Iterable[tuple[float, Quantity]]) -> tuple[Point, ...]:
    return tuple(
        Point(seconds, loss.value, loss.low, loss.high)
        for seconds, loss in losses
        if loss.value is not None
    )


def _law_points(law: FlooredPowerLaw, begin: float, end: float) -> tuple[Point, ...]:
    grid = np.linspace(math.log(begin), math.log(end), LAW_POINTS)
    places = zip(np.exp(grid).tolist(), np.exp(law.log_loss(grid)).tolist(), strict=True)
    return tuple(Point(seconds, loss) for seconds, loss in places)


def kernel_cards(samples: Sequence[KernelSamples]) -> list[dict[str, Any]]:
    """A table and a roofline for each machine and precision; cases by name, then mode, then
    speed."""
    machines: dict[tuple[str, str], list[KernelSamples]] = defaultdict(list)
    for sample in samples:
        machines[sample.environment.machine_key, sample.dtype].append(sample)
    return [_kernels_of(*key, machines[key]) for key in sorted(machines)]


def _kernels_of(machine: str, dtype: str, samples: list[KernelSamples]) -> dict[str, Any]:
    keys = backend_keys(samples)
    rows = []
    for case in sorted({sample.case for sample in samples}):
        own = [sample for sample in samples if sample.case == case]
        ordered, table = in_order(own), kernel_table(own)
        values = to_json(table)
        for sample, found, cells in zip(ordered, values, row_texts(table), strict=True):
            rows.append(
                {
                    "sample": sample,
                    "cells": cells,
                    "speed_up": found["x e3nn"],
                    "error": found["error"],
                    "swatch": swatch(keys[sample.backend, sample.mode]),
                }
            )
    backends = sorted({one.backend for one in samples})
    return {
        "id": element_id("k", machine, dtype),
        "machine_key": machine,
        "dtype": dtype,
        "rows": rows,
        "roofline": roofline(
            f"Roofline of {machine}, {dtype}, both axes logarithmic",
            [own[0] for own in of_newest_code(samples)],
            keys,
        ),
        "backends": [(backend, swatch(keys[backend, MODES[0]])) for backend in backends],
        "modes": [
            (name, swatch(Key(NEUTRAL, marker, "")))
            for name, marker in zip(MODE_NAMES, MARKERS, strict=False)
        ],
    }
