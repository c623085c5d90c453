"""The kernels of a symmetric contraction as one C++ text: the template in ``cpp/`` filled in with
the sizes and polynomials of :mod:`equivbench.kernels.fused.polynomial`."""

from __future__ import annotations

from collections.abc import Iterable

from equivbench.kernels.fused.native_source import template
from equivbench.kernels.fused.polynomial import HornerSum, Polynomials


def contraction_source(table: Polynomials, real: str) -> str:
    """The translation unit for ``table`` in ``real`` (``float`` or ``double``); it exports
    ``launch``."""
    operation = table.operation
    # By path, for the way back from the slots to the weights.
    slots_of_path: list[list[tuple[int, float]]] = [[] for _ in operation.paths]
    for slot, combination in enumerate(table.slots):
        for path, value in combination:
            slots_of_path[path].append((slot, value))
    return template("contraction.cpp.jinja").render(
        real=real,
        channels=operation.channels,
        source_rows=(operation.lmax + 1) ** 2,
        slots=table.slots,
        slots_of_path=slots_of_path,
        targets=len(table.rows),
        # What each row of the output adds up: a row of x times a sum, which has a name.
        parts=[
            (target, row, factor, f"{target}_{place}")
            for target, polynomial in enumerate(table.rows)
            for place, (row, factor) in enumerate(polynomial.products)
        ],
        sum_of=sum_of,
        tangent_of=tangent_of,
    )


def sum_of(polynomial: HornerSum, name: str) -> str:
    """The sum, as C++, where its parts are t<name>_0, t<name>_1, ..."""
    return _signed(
        [
            *((sign, f"c[{slot}]") for slot, sign in polynomial.coefficients),
            *(
                (1, f"x[{row}] * t{name}_{place}")
                for place, (row, _) in enumerate(polynomial.products)
            ),
        ]
    )


def tangent_of(polynomial: HornerSum, name: str) -> str:
    """Its tangent, as C++, where those of its parts are v<name>_0, v<name>_1, ..."""
    return _signed(
        [
            *((sign, f"u_c[{slot}]") for slot, sign in polynomial.coefficients),
            *(
                (1, f"{row_of} * {part}{name}_{place}")
                for place, (row, _) in enumerate(polynomial.products)
                for row_of, part in ((f"u[{row}]", "t"), (f"x[{row}]", "v"))
            ),
        ]
    )


def _signed(terms: Iterable[tuple[int, str]]) -> str:
    written = "".join(f" {'+' if sign > 0 else '-'} {term}" for sign, term in terms)
    return written.removeprefix(" + ").strip()
