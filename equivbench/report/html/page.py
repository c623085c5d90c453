"""The page: one file that loads nothing, whose policy lets nothing but its own style sheet and
script run. The templates lay out what is gathered here for them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity
from equivbench.records.ladder import LadderEntry
from equivbench.records.line_files import KernelSamples
from equivbench.records.pretrained import PretrainedMeasurement
from equivbench.report.answer import answers, telling_gaps
from equivbench.report.appendix import boards_apart, gaps_apart
from equivbench.report.board import LEVEL, Board, Row
from equivbench.report.gaps import (
    NEVER_TIED,
    OTHER,
    budget_text,
    gap_table,
    headline,
    kernels_text,
    reading,
    seeds_text,
    setting,
    slowdown_margin,
    variant_text,
)
from equivbench.report.html.beside import (
    clean,
    element_id,
    frontier_cards,
    kernel_cards,
    machine_cards,
    race_cards,
    table_card,
)
from equivbench.report.html.charts import (
    COLOURS,
    MARKERS,
    Key,
    Point,
    Series,
    axis,
    bar,
    environment,
    line_chart,
    ratio_scale,
    swatch,
)
from equivbench.report.ladder import ladder_table
from equivbench.report.pretrained import pretrained_table
from equivbench.report.publication import CurvePoint, Publication, PublishedGap
from equivbench.report.render import row_labels, row_texts
from equivbench.report.sections import kernel_tables
from equivbench.report.table import Column, Table
from equivbench.report.text import number_text, printable, quantity_text
from equivbench.report.words import HOME
from equivbench.specs import CONTESTANTS

POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
MOST_BYTES = 2_000_000
"""Of the page: more is slow to send and to open."""
MOST_ROWS = 400
"""Of a page without curves: more make it larger than that."""
MOST_SENTENCES = 100
"""On settings without a gap."""
MOST_PAIRS = 100
"""In the answer that the page opens with."""
SIDES = {"augmented": "below", "equivariant": "above", None: ""}
"""By the arm that is behind, on which side of the tie the ratio lies."""
AXES = {"seconds": "device seconds", "samples": "training samples", "steps": "training steps"}
SHARE_DECADES = 4.0
"""Shares of interest lie between tenths and hundredths of a percent; exactly equivariant arms lie
at 1e-10 and below."""
DASHES = ("solid", "dashed", "dotted")


def to_html(publication: Publication, most_bytes: int = MOST_BYTES) -> str:
    """``publication`` as one HTML document.

    Every name in it that came from records is escaped and stripped of control characters, and the
    content security policy allows the page's own style sheet and script by their hashes and nothing
    else: no network, no other script.

    A page of more than ``most_bytes`` has no curves, and if that is not enough only the first rows
    of each board and the first gaps and frontiers; it says what is left out and how to see it.
    """
    longest = max(sum(len(board.rows) for board in publication.boards), len(publication.gaps), 1)
    curves, most = bool(publication.curves), longest if publication.curves else MOST_ROWS
    while True:
        text = _page(publication, curves=curves, most=most)
        if len(text.encode()) <= most_bytes or most == 1:
            return text
        curves, most = False, most if curves else max(1, min(most, longest) // 2)


def _page(publication: Publication, *, curves: bool, most: int) -> str:
    """The page, with ``curves`` or without, of ``most`` rows and as many gaps and frontiers."""
    style, script = _asset("board.css"), _asset("board.js")
    main, further = boards_apart(publication.boards)
    gaps, further_gaps = gaps_apart(publication.gaps, lambda each: each.gap)
    gaps, further_gaps = gaps[:most], further_gaps[: max(0, most - len(gaps))]
    quotas = shared_out([len(board.rows) for board in (*main, *further)], most)
    points = iter([curve.points for curve in publication.curves])
    drawn = {
        board.setting: [next(points) for _ in board.rows] for board in publication.boards if curves
    }
    shown = [
        (board, _board(board, quota, drawn.get(board.setting)) if quota else None)
        for board, quota in zip((*main, *further), quotas, strict=True)
    ]
    measured: list[KernelSamples | PretrainedMeasurement | LadderEntry] = [
        *publication.kernels,
        *publication.pretrained,
        *publication.ladder,
    ]
    machines = {board.setting.machine_key for board in publication.boards} | {
        clean(each.environment.machine_key) for each in measured
    }
    rows = [row for board in publication.boards for row in board.rows]
    units = {board.setting.task: board.unit for board in publication.boards}
    text: str = (
        _environment()
        .get_template("page.html")
        .render(
            home=HOME,
            style=style,
            script=script,
            policy=f"{POLICY}; style-src {_hash(style)}; script-src {_hash(script)}",
            tasks=_by_task(shown[: len(main)]),
            further_tasks=_by_task(shown[len(main) :]),
            task_names=list(dict.fromkeys(board.setting.task for board in publication.boards)),
            machines=sorted(machines),
            axes=AXES,
            rows=rows,
            curves=curves,
            rows_shown=sum(quotas),
            gap_count=len(publication.gaps),
            gaps_shown=len(gaps) + len(further_gaps),
            left_out=publication.left_out[:MOST_SENTENCES],
            left_out_count=len(publication.left_out),
            races=race_cards(publication.races if curves else ()),
            frontier_count=len(publication.frontiers),
            frontiers=frontier_cards(
                publication.frontiers[:most],
                lambda task: show_unit(units.get(task, "")),
                charts=curves,
            ),
            studied=[table_card(each, "s", each.title) for each in publication.studied],
            kernels=kernel_cards(publication.kernels),
            by_backend=[table_card(each, "x", each.title) for each in kernel_tables(publication)],
            pretrained=machine_cards("p", publication.pretrained, pretrained_table),
            ladder=machine_cards("l", publication.ladder, ladder_table),
            level=f"{LEVEL:.0%}",
            rules=markup(files("equivbench.records").joinpath("rules.md").read_text("utf-8")),
            rules_versions=sorted({board.setting.rules_version for board in publication.boards}),
            never_tied=NEVER_TIED,
            lead_seeds=LEAD_SEEDS,
            **_answer([one.gap for one in publication.gaps]),
            gaps=_gaps(gaps),
            further_gaps=_gaps(further_gaps),
        )
    )
    return text


def _by_task(
    boards: Sequence[tuple[Board, dict[str, Any] | None]],
) -> dict[str, list[dict[str, Any]]]:
    """Those of ``boards`` that are shown, by their task."""
    tasks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for board, card in boards:
        if card is not None:
            tasks[board.setting.task].append(card)
    return tasks


def shared_out(counts: Sequence[int], most: int) -> list[int]:
    """How many of each of ``counts`` are shown where ``most`` in all are: as many of each, or all
    it has; of the first ones alone where there are more of them than ``most``."""
    each = most
    while each > 1 and sum(min(count, each) for count in counts) > most:
        each //= 2
    return [min(count, each) if place < most else 0 for place, count in enumerate(counts)]


@cache
def _environment() -> Environment:
    found = environment()
    filters: dict[str, Callable[..., Any]] = {
        "shown": lambda value: "n/a" if value is None else number_text(value),
        "quantity": quantity_text,
        "clean": clean,
        "code": code,
        "unit": show_unit,
        "reading": reading,
        "setting": setting,
    }
    found.filters.update(filters)
    return found


def show_unit(unit: str) -> str:
    """``nm^2`` as ``nm²``; nothing where the quantity has no unit."""
    return "" if unit == "1" else unit.replace("^2", "²").replace("^3", "³")


def _board(
    board: Board, quota: int, curves: Sequence[tuple[CurvePoint, ...]] | None
) -> dict[str, Any]:
    """A board with its element id, its first rows with their keys in the charts, and its curves, if
    any, on three axes."""
    name, place = element_id("b", board.setting), board.setting
    shown = board.rows[:quota]
    keys = row_keys(shown)
    rows: list[dict[str, Any]] = [
        {
            "id": f"{name}-{number}",
            "row": row,
            "label": label,
            "swatch": swatch(key),
            "curve": curves[number] if curves else (),
            "name": f"{row.pair}, {row.arm}" + (f" ({label})" if label else ""),
        }
        for number, (row, label, key) in enumerate(zip(shown, labels(shown), keys, strict=True))
    ]
    unit = show_unit(board.unit)
    metrics = {
        "total": (f"test loss [{unit}]" if unit else "test loss", None),
        "share": ("equivariance error / loss", SHARE_DECADES),
    }

    def chart(axis: str, metric: str) -> Markup | None:
        series = [
            Series(row["name"], key, _points(row["curve"], axis, metric), row["id"])
            for row, key in zip(rows, keys, strict=True)
        ]
        title, decades = metrics[metric]
        against = f"{place.task}: {title} against {AXES[axis]}, both logarithmic"
        return line_chart(against, AXES[axis], title, series, decades=decades)

    return {
        "id": name,
        "setting": place,
        "unit": board.unit,
        "heading": ", ".join(
            filter(None, (place.preset, place.budget, place.variant, place.machine_key))
        ),
        "rows": rows,
        "of": len(board.rows),
        "panels": [
            {"axis": axis, "loss": chart(axis, "total"), "share": chart(axis, "share")}
            for axis in (AXES if curves else ())
        ],
    }


def _points(curve: Sequence[CurvePoint], axis: str, metric: str) -> tuple[Point, ...]:
    found: list[tuple[float, Quantity]] = [
        (getattr(point, axis), getattr(point, metric)) for point in curve
    ]
    return tuple(Point(x, y.value, y.low, y.high) for x, y in found if y.value is not None)


def row_keys(rows: Sequence[Row]) -> list[Key]:
    """Colour by arm, the first two for the contestants; dashes and marker by pair, so that the
    arms of a pair look alike, or by what else tells rows apart."""
    arms = list(dict.fromkeys([*CONTESTANTS, *(row.arm for row in rows)]))
    styles = {pair: place for place, pair in enumerate(dict.fromkeys(row.pair for row in rows))}
    seen: dict[tuple[str, str], int] = defaultdict(int)
    markers, keys = list(MARKERS), []
    for row in rows:
        place = styles[row.pair] + len(styles) * seen[row.pair, row.arm]
        seen[row.pair, row.arm] += 1
        colour = arms.index(row.arm) % COLOURS
        keys.append(Key(colour, markers[place % len(markers)], DASHES[place % len(DASHES)]))
    return keys


def labels(rows: Sequence[Row]) -> list[str]:
    """What tells each of ``rows`` from others of its pair and arm, where there are any."""
    columns = [Column("pair", key=True), Column("arm", key=True)]
    columns += [
        Column(name, key=True, show="needed")
        for name in ("kernels", "model", "setup", "day", "commit")
    ]
    cells = [[getattr(row, column.name) for column in columns] for row in rows]
    return row_labels(Table("", columns, cells), "pair", "arm")


def _answer(gaps: Sequence[PairGap]) -> dict[str, Any]:
    """A sentence for each task, and the loss ratio of each pair drawn on one axis."""
    telling = telling_gaps(gaps)[:MOST_PAIRS]
    scale = ratio_scale(gap.loss_ratio for gap in telling)
    forest = [
        {
            "gap": gap,
            "leader": None if gap.behind is None else OTHER[gap.behind],
            "budget": budget_text(gap),
            "variant": variant_text(gap.variant),
            "kernels": kernels_text(gap),
            "seeds": seeds_text(gap.n_seeds - gap.n_diverged, gap.n_seeds),
            "bar": bar(gap.loss_ratio, scale, lead=SIDES[gap.behind]),
        }
        for gap in telling
    ]
    return {"answers": answers(telling), "forest": forest, "forest_axis": axis(scale)}


def _gaps(gaps: Sequence[PublishedGap]) -> dict[str, Any]:
    """The columns of the terminal's table, the two ratios drawn, each on the axis of its column."""
    table = gap_table([one.gap for one in gaps])
    margins = [slowdown_margin(one.gap) for one in gaps]
    ratios, spare = ratio_scale(one.gap.loss_ratio for one in gaps), ratio_scale(margins)
    rows = []
    for one, margin, cells, label in zip(
        gaps, margins, row_texts(table), row_labels(table, "pair"), strict=True
    ):
        found, ratio = headline(one.gap), one.gap.loss_ratio
        side = "below" if ratio.high is not None and ratio.high < 1 else ""
        side = "above" if ratio.low is not None and ratio.low > 1 else side
        rows.append(
            {
                "gap": one.gap,
                "leader": None if one.gap.behind is None else OTHER[one.gap.behind],
                "unit": one.unit,
                "provenance": one.provenance,
                "label": label,
                "cells": cells,
                "ratio_bar": bar(ratio, ratios, lead=side),
                "margin": margin,
                "margin_bar": bar(margin, spare, lead=SIDES[one.gap.behind]),
                "s_star": Quantity() if found is None else found[1].steady,
            }
        )
    return {"rows": rows, "ratio_axis": axis(ratios), "margin_axis": axis(spare)}


def _asset(name: str) -> Markup:
    """A file of this package that goes into the page as it is."""
    return Markup(files("equivbench.report.html").joinpath("assets", name).read_text("utf-8"))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def markup(text: str) -> Markup:
    """``text`` as HTML: ``#`` and ``##`` headings (of the fourth level), lists of lines ``1. ...``,
    ```code```; every other line is a paragraph."""
    blocks: list[Markup] = []
    items: list[Markup] = []
    for line in [*text.splitlines(), ""]:
        numbered = re.match(r"\d+\. ", line)
        if numbered:
            items.append(Markup("<li>{}</li>").format(code(line[numbered.end() :])))
            continue
        if items:
            blocks.append(Markup("<ol>{}</ol>").format(Markup("").join(items)))
            items = []
        if line.startswith("#"):
            blocks.append(Markup("<h4>{}</h4>").format(line.lstrip("# ")))
        elif line.strip():
            blocks.append(Markup("<p>{}</p>").format(code(line)))
    return Markup("\n").join(blocks)


def code(line: str) -> Markup:
    """``line``, escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(printable(line)))))
