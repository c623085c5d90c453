"""What the page shows of one board: its rows with their keys in the charts, and its curves on three
axes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from equivbench.gap.intervals import Quantity
from equivbench.report.board import Board, BoardSetting, Row
from equivbench.report.curves import Curve, CurvePoint
from equivbench.report.html.charts import (
    COLOURS,
    MARKERS,
    Key,
    Point,
    Series,
    line_chart,
    swatch,
)
from equivbench.report.render import row_labels
from equivbench.report.table import Column, Table

AXES = {"seconds": "device seconds", "samples": "training samples", "steps": "training steps"}
SHARE_DECADES = 4.0
"""Shares of interest lie between tenths and hundredths of a percent; exactly equivariant arms lie
at 1e-10 and below."""
DASHES = ("solid", "dashed", "dotted")
ARMS = ("equivariant", "augmented")
"""These always have the first two colours; other arms take the next ones."""


@dataclass(frozen=True)
class Panels:
    """The charts of one horizontal axis; None where there is nothing that a logarithmic axis could
    show."""

    axis: str
    name: str
    loss: Markup | None
    share: Markup | None


@dataclass(frozen=True)
class ShownRow:
    """A row with its element id, its sample in the legend and its curve."""

    id: str
    row: Row
    label: str
    """What tells the row from others of its pair and arm: the kernels, the model, the setup."""
    swatch: Markup
    curve: tuple[CurvePoint, ...]

    @property
    def name(self) -> str:
        """What the row is called in legends."""
        label = f" ({self.label})" if self.label else ""
        return f"{self.row.pair}, {self.row.arm}{label}"


@dataclass(frozen=True)
class ShownBoard:
    """A board with its element id, rows and charts."""

    id: str
    setting: BoardSetting
    unit: str
    rows: tuple[ShownRow, ...]
    panels: tuple[Panels, ...]

    @property
    def heading(self) -> str:
        """What distinguishes the setting, in words."""
        parts = (
            self.setting.preset,
            self.setting.budget,
            self.setting.variant,
            self.setting.machine_key,
        )
        return ", ".join(part for part in parts if part)


def show_boards(boards: Sequence[Board], curves: Sequence[Curve]) -> list[ShownBoard]:
    """``boards`` with ``curves``, one a row of theirs in the same order."""
    drawn = iter(curves)
    return [_board(board, [next(drawn) for _ in board.rows]) for board in boards]


def show_unit(unit: str) -> str:
    """``nm^2`` as ``nm²``; nothing where the quantity has no unit."""
    return "" if unit == "1" else unit.replace("^2", "²").replace("^3", "³")


def element_id(prefix: str, *parts: object) -> str:
    """An id that stays the same from page to page as long as ``parts`` do, and holds nothing of
    their text."""
    return prefix + hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()[:8]


def row_keys(rows: Sequence[Row]) -> list[Key]:
    """Colour by arm; dashes and marker by pair, so that the arms of a pair look alike, or by what
    else tells rows apart."""
    arms = list(dict.fromkeys([*ARMS, *(row.arm for row in rows)]))
    styles = {pair: place for place, pair in enumerate(dict.fromkeys(row.pair for row in rows))}
    seen: dict[tuple[str, str], int] = defaultdict(int)
    keys = []
    for row in rows:
        place = styles[row.pair] + len(styles) * seen[row.pair, row.arm]
        seen[row.pair, row.arm] += 1
        keys.append(
            Key(
                arms.index(row.arm) % COLOURS,
                MARKERS[place % len(MARKERS)],
                DASHES[place % len(DASHES)],
            )
        )
    return keys


def labels(rows: Sequence[Row]) -> list[str]:
    """What tells each of ``rows`` from others of its pair and arm, where there are any."""
    columns = (
        Column("pair", key=True),
        Column("arm", key=True),
        Column("kernels", key=True, show="needed"),
        Column("model", key=True, show="needed"),
        Column("setup", key=True, show="needed"),
    )
    cells = [[getattr(row, column.name) for column in columns] for row in rows]
    return row_labels(Table("", columns, cells), "pair", "arm")


def _board(board: Board, curves: Sequence[Curve]) -> ShownBoard:
    name = element_id("b", board.setting)
    keys = row_keys(board.rows)
    rows = tuple(
        ShownRow(f"{name}-{place}", row, label, swatch(key), curve.points)
        for place, (row, label, key, curve) in enumerate(
            zip(board.rows, labels(board.rows), keys, curves, strict=True)
        )
    )
    panels = tuple(_panels(board, axis, rows, keys) for axis in AXES)
    return ShownBoard(name, board.setting, board.unit, rows, panels)


def _panels(board: Board, axis: str, rows: Sequence[ShownRow], keys: Sequence[Key]) -> Panels:
    def series(metric: str) -> list[Series]:
        return [
            Series(
                shown.name,
                key,
                _points(shown.curve, axis, metric),
                shown.id,
            )
            for shown, key in zip(rows, keys, strict=True)
        ]

    task = board.setting.task
    unit = show_unit(board.unit)
    loss = f"test loss [{unit}]" if unit else "test loss"
    share = "equivariance error / loss"
    return Panels(
        axis,
        AXES[axis],
        line_chart(
            f"{task}: {loss} against {AXES[axis]}, both logarithmic",
            AXES[axis],
            loss,
            series("total"),
        ),
        line_chart(
            f"{task}: {share} against {AXES[axis]}, both logarithmic",
            AXES[axis],
            share,
            series("share"),
            decades=SHARE_DECADES,
        ),
    )


def _points(curve: Sequence[CurvePoint], axis: str, metric: str) -> tuple[Point, ...]:
    found = []
    for point in curve:
        quantity: Quantity = getattr(point, metric)
        if quantity.value is not None:
            found.append(Point(getattr(point, axis), quantity.value, quantity.low, quantity.high))
    return tuple(found)
