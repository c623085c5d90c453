"""The kernels of Allegro's edge product as one C++ text: the template in ``cpp/`` filled in with
its sizes and coefficients.

All edges of a centre see the same environment, and so does the same matrix take their features to
the outputs. Each of its different entries is a slot: a sum of weights of paths times rows of the
environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from equivbench.kernels.fused.native_source import Entry, template
from equivbench.kernels.operations import EdgeProduct
from equivbench.kernels.operations.paths import coupling

Slot = tuple[tuple[int, int, float], ...]
"""(path, row of the environment, coefficient), by path and row."""

_NOISE = 1e-12
"""Far above the rounding of e3nn's float64 table and far below its smallest coefficient."""


@dataclass(frozen=True)
class ProductTable:
    """The matrix of an edge product."""

    operation: EdgeProduct
    slots: tuple[Slot, ...]
    entries: tuple[Entry, ...]
    """(row of the output, row of x, slot) for each that is not zero."""


@lru_cache(maxsize=64)
def product_table(operation: EdgeProduct) -> ProductTable:
    """The entries of the matrix, those that are the same sum once."""
    sums: dict[tuple[int, int], Slot] = {}
    for number, path in enumerate(operation.paths):
        coefficients = coupling(path)
        for target, source, edge in coefficients.abs().gt(_NOISE).nonzero().tolist():
            place = path.target**2 + target, path.source**2 + source
            value = float(coefficients[target, source, edge])
            sums[place] = (*sums.get(place, ()), (number, path.edge**2 + edge, value))
    slots: dict[tuple[tuple[int, int, int], ...], tuple[int, Slot]] = {}
    entries = []
    for (target, source), found in sums.items():
        known = tuple((path, row, round(value / _NOISE)) for path, row, value in found)
        slot, _ = slots.setdefault(known, (len(slots), found))
        entries.append((target, source, slot))
    return ProductTable(operation, tuple(one for _, one in slots.values()), tuple(entries))


def product_source(table: ProductTable, real: str) -> str:
    """The translation unit for ``table`` in ``real`` (``float`` or ``double``); it exports
    ``launch``."""
    operation = table.operation

    def row_of(row: int, *factors: tuple[str, str]) -> str:
        return " + ".join(
            f"{matrix}[{slot}] * {vector}[{source}]"
            for matrix, vector in factors
            for target, source, slot in table.entries
            if target == row
        )

    def column_of(row: int, matrix: str) -> str:
        return " + ".join(
            f"{matrix}[{slot}] * g[{target}]"
            for target, source, slot in table.entries
            if source == row
        )

    return template("edge_product.cpp.jinja").render(
        real=real,
        channels=operation.channels,
        degrees=operation.lmax + 1,
        rows=range((operation.lmax + 1) ** 2),
        slots=table.slots,
        entries=table.entries,
        pairs_of_path=[list(_pairs(table, path)) for path in range(len(operation.paths))],
        entry_of=entry_of,
        sum_of=sum_of,
        row_of=row_of,
        column_of=column_of,
    )


def entry_of(slot: Slot, *factors: tuple[str, str]) -> str:
    """The sum over (weights, environment) in ``factors`` of the products of ``slot``, as C++."""
    return " + ".join(
        f"{weights}[{path}] * ({sum_of([(row, value) for _, row, value in parts], environment)})"
        for weights, environment in factors
        for path, parts in groupby(slot, key=lambda part: part[0])
    )


def sum_of(parts: Iterable[tuple[int, float]], array: str) -> str:
    """The sum of rows of ``array`` times coefficients, as C++."""
    return " + ".join(f"{array}[{row}] * (real){value}" for row, value in parts)


def _pairs(table: ProductTable, path: int) -> Iterator[tuple[int, list[tuple[int, float]]]]:
    """(row of the environment, the slots that it is in by ``path`` with their coefficients)."""
    found: dict[int, list[tuple[int, float]]] = {}
    for slot, parts in enumerate(table.slots):
        for number, row, value in parts:
            if number == path:
                found.setdefault(row, []).append((slot, value))
    yield from sorted(found.items())
