"""The kernels of an operation along edges as one C++ text: the template in ``cpp/`` filled in with
its sizes and coefficients.

The C++, formulas and all, is in the template; here stand the sums over coefficients, which are what
differs between operations (:mod:`equivbench.kernels.fused.coupling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from equivbench.kernels.fused.coupling import Coupling, Couplings

ACCUMULATORS = 20
"""Vectors that a loop over channels adds up in registers: of 32, or of 16, where the compiler
spills some to the stack."""

Entry = tuple[int, int, int]
"""(m3, m1, slot) of M."""


def source(table: Couplings, real: str) -> str:
    """The translation unit for ``table`` in ``real`` (``float`` or ``double``); it exports
    ``launch``."""
    return template("operation.cpp.jinja").render(
        operation=table.operation,
        slots=table.slots,
        real=real,
        harmonics_size=table.harmonics_size,
        parts=table.sources,
        row_of=row_of,
        column_of=column_of,
        targets=targets,
        sources=sources,
        slots_of=slots_of,
        turns=turns,
        products=products,
        shorter=shorter,
    )


def template(name: str) -> Template:
    """The template ``name`` in ``cpp/``."""
    return _environment().get_template(name)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("equivbench.kernels.fused", "cpp"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def row_of(path: Coupling, row: int, *factors: tuple[str, str]) -> str:
    """The sum over (matrix, vector) in ``factors`` of (matrix vector)[row], as C++."""
    return " + ".join(
        f"{matrix}[{slot} * EDGES] * {vector}{m1}"
        for matrix, vector in factors
        for m3, m1, slot in path.entries
        if m3 == row
    )


def column_of(path: Coupling, column: int, matrix: str) -> str:
    """(matrix^T g)[column], as C++."""
    return " + ".join(
        f"{matrix}[{slot} * EDGES] * g{m3}" for m3, m1, slot in path.entries if m1 == column
    )


def targets(entries: Iterable[Entry]) -> list[int]:
    """The m3 that occur."""
    return sorted({m3 for m3, _, _ in entries})


def sources(entries: Iterable[Entry]) -> list[int]:
    """The m1 that occur."""
    return sorted({m1 for _, m1, _ in entries})


def slots_of(entries: Iterable[Entry]) -> list[int]:
    """The slots that occur."""
    return sorted({slot for *_, slot in entries})


def products(entries: Iterable[Entry], slot: int) -> str:
    """The sum of the products of g and b that belong to ``slot``, as C++."""
    return " + ".join(f"g{m3} * b{m1}" for m3, m1, other in entries if other == slot)


def shorter(channels: int) -> list[tuple[int, int]]:
    """(lanes, first channel) of the vectors for what is left over by those of 16 lanes; longer ones
    than a machine has no need of it skips."""
    return [(lanes, channels & -2 * lanes) for lanes in (8, 4, 2, 1) if channels & lanes]


def turns(path: Coupling) -> Iterator[list[Entry]]:
    """The entries in parts of whole rows m3 that need at most ACCUMULATORS vectors; a longer row is
    a part of its own."""
    turn: list[Entry] = []
    for _, members in groupby(path.entries, key=lambda entry: entry[0]):
        row = list(members)
        if turn and len(slots_of(turn + row)) > ACCUMULATORS:
            yield turn
            turn = []
        turn = turn + row
    if turn:
        yield turn
