"""The convolution's three kernels as C++ text: what differs between operations, unrolled, around a driver that does not.

Channels are the lanes of the vectors. A kernel reads one edge: rows of x, of its weights, of the output's gradient, and the
matrices M of its harmonics (:mod:`equivbench.kernels.fused.coupling`), computed for several edges at once because they are
the same for all channels. ``n`` is the number of lanes in use: whole vectors, then what is left of the channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from equivbench.kernels.fused.coupling import Coupling, Couplings
from equivbench.kernels.fused.native_driver import DRIVER, PRELUDE

ACCUMULATORS = 20
"""Vectors that a loop over channels adds up in registers: of 32 (or 16, where the compiler spills some to the stack)."""


def source(table: Couplings, real: str) -> str:
    """The translation unit for ``table`` in ``real`` (``float`` or ``double``); it exports what PRELUDE declares."""
    operation = table.operation
    return "\n".join(
        [
            f"typedef {real} real;",
            f"enum {{ SOURCE = {operation.source_size}, TARGET = {operation.target_size}, WEIGHTS = {operation.weight_size},",
            f"       ROWS = {(operation.edge_lmax + 1) ** 2}, SLOTS = {len(table.slots)} }};",
            PRELUDE,
            *_couple(table),
            *(line for degree in _degrees(table) for line in _degree(table, degree)),
            *_edge(table, "forward"),
            *_edge(table, "by_weights"),
            *_edge(table, "by_x"),
            *_edge(table, "by_harmonics"),
            *_edge(table, "second_forward"),
            *_edge(table, "second_by_x"),
            *_edge(table, "second_by_harmonics"),
            DRIVER,
        ]
    )


def _degrees(table: Couplings) -> list[int]:
    return sorted({path.source for path in table.paths})


def _couple(table: Couplings) -> Iterator[str]:
    """M of EDGES edges from their harmonics: each slot's combination, one lane an edge."""
    yield "static void couple(const many *y, many *m) {"
    for slot, combination in enumerate(table.slots):
        terms = " + ".join(f"y[{row}] * (real){value!r}" for row, value in combination)
        yield f"  m[{slot}] = {terms};"
    yield "}"


def _sum(terms: list[str]) -> str:
    return " + ".join(terms)


def _row(m3: int, path: Coupling, matrix: str, vector: str) -> list[str]:
    """The products whose sum is (matrix times vector)[m3]."""
    return [f"{matrix}[{slot} * EDGES] * {vector}{m1}" for row, m1, slot in path.entries if row == m3]


def _degree(table: Couplings, degree: int) -> Iterator[str]:
    """The kernels' parts for the paths from one source degree: all loops over its channels."""
    channels = table.operation.channels[degree]
    paths = [path for path in table.paths if path.source == degree]
    rows = range(2 * degree + 1)
    begin = table.source_offset(degree)
    vector, width = f"lanes<W{degree}>::type", f"W{degree}"
    yield f"enum {{ W{degree} = width({channels}), C{degree} = {channels} }};"

    def loads(name: str, array: str) -> Iterator[str]:
        for row in rows:
            yield f"  const V {name}{row} = load<V, n>({array} + {begin + row * channels});"

    def head(name: str) -> str:
        return f"template <int n> static inline void {name}_{degree}(const Edge &e, int c) {{\n  typedef {vector} V;"

    def targets(path: Coupling) -> list[tuple[int, int]]:
        return [(m3, path.output + m3 * channels) for m3 in range(2 * path.target + 1) if _row(m3, path, "", "")]

    yield head("forward")
    yield from loads("x", "e.x + c")
    for path in paths:
        yield f"  {{ const V w = load<V, n>(e.w + c + {path.weights});"
        for m3, at in targets(path):
            yield f"    add<V, n>(e.out + c + {at}, w * ({_sum(_row(m3, path, 'e.m', 'x'))}));"
        yield "  }"
    yield "}"

    yield head("by_weights")
    yield from loads("x", "e.x + c")
    for path in paths:
        terms = [f"load<V, n>(e.g + c + {at}) * ({_sum(_row(m3, path, 'e.m', 'x'))})" for m3, at in targets(path)]
        yield f"  store<V, n>(e.by_w + c + {path.weights}, {_sum(terms)});"
    yield "}"

    for name, second in (("by_x", False), ("second_by_x", True)):
        yield head(name)
        for row in rows:
            yield f"  V a{row} = load<V, n>(e.by_x + c + {begin + row * channels});"
        for path in paths:
            yield f"  {{ const V w = load<V, n>(e.w + c + {path.weights});"
            if second:
                yield f"    const V u = load<V, n>(e.u_w + c + {path.weights});"
            for m3, at in targets(path):
                yield f"    {{ const V g = load<V, n>(e.g + c + {at}), wg = w * g{', ug = u * g' if second else ''};"
                for row, m1, slot in path.entries:
                    if row == m3:
                        if second:
                            yield f"      a{m1} += e.m_u[{slot} * EDGES] * wg; a{m1} += e.m[{slot} * EDGES] * ug;"
                        else:
                            yield f"      a{m1} += e.m[{slot} * EDGES] * wg;"
                yield "    }"
            yield "  }"
        for row in rows:
            yield f"  store<V, n>(e.by_x + c + {begin + row * channels}, a{row});"
        yield "}"

    yield head("second_forward")
    yield from loads("x", "e.x + c")
    yield from loads("u", "e.u_x + c")
    for path in paths:
        yield f"  {{ const V w = load<V, n>(e.w + c + {path.weights}), v = load<V, n>(e.u_w + c + {path.weights}); V s = {{}};"
        for m3, at in targets(path):
            first, other = _row(m3, path, "e.m", "x"), _row(m3, path, "e.m", "u") + _row(m3, path, "e.m_u", "x")
            yield f"    {{ const V t = {_sum(other)};"
            yield f"      s += load<V, n>(e.g + c + {at}) * t;"
            yield f"      if (e.out) add<V, n>(e.out + c + {at}, w * t + v * ({_sum(first)})); }}"
        yield f"    if (e.by_w) store<V, n>(e.by_w + c + {path.weights}, s); }}"
    yield "}"

    for name, second in (("by_harmonics", False), ("second_by_harmonics", True)):
        yield f"static inline void {name}_{degree}(const Edge &e) {{\n  typedef {vector} V;"
        touched = sorted({row for path in paths for *_, slot in path.entries for row, _ in table.slots[slot]})
        yield "  V " + ", ".join(f"y{row} = {{}}" for row in touched) + ";"
        for path in paths:
            for group in _groups(path):
                slots = sorted({slot for _, _, slot in group})
                # The products of one path and a few of its rows, added up over the channels before the harmonics' rows are told
                # apart: the coefficients then cost once an edge.
                yield "  { V " + ", ".join(f"q{slot} = {{}}" for slot in slots) + ";"
                for count, loop in ((width, True), (f"C{degree} % W{degree}", False)):
                    yield (
                        f"    ROLLED for (int c = 0; c + W{degree} <= C{degree}; c += W{degree}) {{"
                        if loop
                        else f"    if (C{degree} % W{degree}) {{ const int c = C{degree} - C{degree} % W{degree};"
                    )
                    yield f"      const V w = load<V, {count}>(e.w + c + {path.weights});"
                    if second:
                        yield f"      const V v = load<V, {count}>(e.u_w + c + {path.weights});"
                    for m1 in sorted({m1 for _, m1, _ in group}):
                        yield f"      const V x{m1} = load<V, {count}>(e.x + c + {begin + m1 * channels});"
                        if second:
                            yield f"      const V u{m1} = load<V, {count}>(e.u_x + c + {begin + m1 * channels});"
                    for m3, members in groupby(group, key=lambda entry: entry[0]):
                        at = path.output + m3 * channels
                        yield f"      {{ const V g = load<V, {count}>(e.g + c + {at}), wg = w * g;"
                        if second:
                            yield "        const V vg = v * g;"
                        for _, m1, slot in members:
                            yield f"        q{slot} += wg * u{m1} + vg * x{m1};" if second else f"        q{slot} += wg * x{m1};"
                        yield "      }"
                    yield "    }"
                for slot in slots:
                    for row, value in table.slots[slot]:
                        yield f"    y{row} += q{slot} * (real){value!r};"
                yield "  }"
        for row in touched:
            yield f"  e.by_y[{row}] += lanes<W{degree}>::total(y{row});"
        yield "}"


def _groups(path: Coupling) -> Iterator[list[tuple[int, int, int]]]:
    """The entries of a path in parts of whole rows that need at most ACCUMULATORS vectors (a longer row is a part of its own)."""
    part: list[tuple[int, int, int]] = []
    for _, members in groupby(path.entries, key=lambda entry: entry[0]):
        row = list(members)
        if part and len({slot for *_, slot in part + row}) > ACCUMULATORS:
            yield part
            part = []
        part = part + row
    if part:
        yield part


def _edge(table: Couplings, name: str) -> Iterator[str]:
    """One edge: the parts of all source degrees."""
    yield f"static inline void {name}(const Edge &e) {{"
    for degree in _degrees(table):
        if name.endswith("by_harmonics"):
            yield f"  {name}_{degree}(e);"
        else:
            yield f"  ROLLED for (int c = 0; c + W{degree} <= C{degree}; c += W{degree}) {name}_{degree}<W{degree}>(e, c);"
            yield f"  if (C{degree} % W{degree}) {name}_{degree}<C{degree} % W{degree}>(e, C{degree} - C{degree} % W{degree});"
    yield "}"
