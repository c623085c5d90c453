"""The convolution's kernels as C++ text: what differs between operations, unrolled, around a driver
that does not.

Channels are the lanes of the vectors. A kernel reads one edge: rows of x, of its weights, of the
output's gradient, and the matrices M of its harmonics (:mod:`equivbench.kernels.fused.coupling`),
computed for several edges at once because they are the same for all channels. ``n`` is the number
of lanes in use: whole vectors, then what is left of the channels.
"""

from __future__ import annotations

from collections.abc import Iterator

from equivbench.kernels.fused.coupling import Couplings
from equivbench.kernels.fused.native_driver import DRIVER, PRELUDE
from equivbench.kernels.fused.native_parts import Part, part_text


def source(table: Couplings, real: str) -> str:
    """The translation unit for ``table`` in ``real`` (``float`` or ``double``); it exports
    ``launch``."""
    operation = table.operation
    parts = [Part(table, degree) for degree in sorted({path.source for path in table.paths})]
    return "\n".join(
        [
            f"typedef {real} real;",
            f"enum {{ SOURCE = {operation.source_size}, TARGET = {operation.target_size}, WEIGHTS = {operation.weight_size},",
            f"       ROWS = {(operation.edge_lmax + 1) ** 2}, SLOTS = {len(table.slots)} }};",
            PRELUDE,
            *_couple(table),
            *(line for part in parts for line in part_text(part)),
            *(
                line
                for name in ("forward", "first", "second_forward", "second")
                for line in _by_channels(parts, name)
            ),
            *(
                line
                for name in ("by_harmonics", "second_by_harmonics")
                for line in _whole(parts, name)
            ),
            DRIVER,
        ]
    )


def _couple(table: Couplings) -> Iterator[str]:
    """M of EDGES edges from their harmonics: each slot's combination, one lane an edge."""
    yield "static void couple(const many *y, many *m) {"
    for slot, combination in enumerate(table.slots):
        terms = " + ".join(f"y[{row}] * (real){value!r}" for row, value in combination)
        yield f"  m[{slot}] = {terms};"
    yield "}"


def _by_channels(parts: list[Part], name: str) -> Iterator[str]:
    """One edge: the function ``name`` of each source degree, for one vector of its channels after
    the other."""
    yield f"static inline void {name}(const Edge &e) {{"
    for degree in (part.degree for part in parts):
        width, channels = f"W{degree}", f"C{degree}"
        yield f"  ROLLED for (int c = 0; c + {width} <= {channels}; c += {width}) {name}_{degree}<{width}>(e, c);"
        yield f"  if ({channels} % {width}) {name}_{degree}<{channels} % {width}>(e, {channels} - {channels} % {width});"
    yield "}"


def _whole(parts: list[Part], name: str) -> Iterator[str]:
    """One edge: the function ``name`` of each source degree, for all of its channels at once."""
    yield f"static inline void {name}(const Edge &e) {{"
    for part in parts:
        yield f"  {name}_{part.degree}(e);"
    yield "}"
