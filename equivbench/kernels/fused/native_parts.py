"""The formulas of the convolution's kernels for the paths of one source degree, as C++ text: what
is unrolled.

``x``, ``w``, ``g`` are rows of the features, weights and output gradient, ``u`` and ``v`` the
cotangents of x's and w's gradients, M and N the matrices of the harmonics and of their gradient's
cotangent. Each formula is arranged for the fewest products: with z = M^T g, the gradients by x and
by w are w z and x . z; the second derivatives meet x and w only in a = w u + v x and b = w x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from equivbench.kernels.fused.coupling import Coupling, Couplings

ACCUMULATORS = 20
"""Vectors that a loop over channels adds up in registers: of 32, or of 16, where the compiler
spills some to the stack."""

Entry = tuple[int, int, int]
"""(m3, m1, slot) of M."""
Lines = Iterator[str]


@dataclass(frozen=True)
class Part:
    """One source degree of an operation."""

    table: Couplings
    degree: int

    @property
    def channels(self) -> int:
        """Channels of this degree."""
        return self.table.operation.channels[self.degree]

    @property
    def paths(self) -> list[Coupling]:
        """The paths from this degree."""
        return [path for path in self.table.paths if path.source == self.degree]

    def source(self, array: str, m1: int, n: str = "n") -> str:
        """Row m1 of x or of something shaped like it."""
        return f"load<V, {n}>(e.{array} + c + {self.table.source_offset(self.degree) + m1 * self.channels})"

    def target(self, array: str, path: Coupling, m3: int, n: str = "n") -> str:
        """Row m3 of the path's output or of something shaped like it."""
        return f"load<V, {n}>(e.{array} + c + {path.output + m3 * self.channels})"

    def weight(self, array: str, path: Coupling, n: str = "n") -> str:
        """The path's weights or something shaped like them."""
        return f"load<V, {n}>(e.{array} + c + {path.weights})"


def part_text(part: Part) -> Lines:
    """All functions for ``part``: ``NAME_DEGREE<n>(e, c)`` for n channels from c on, and for the
    harmonics ``NAME_DEGREE(e)``."""
    yield f"enum {{ W{part.degree} = width({part.channels}), C{part.degree} = {part.channels} }};"
    bodies: dict[str, Callable[[Part], Lines]] = {
        "forward": _forward,
        "first": _first,
        "second_forward": _second_forward,
        "second": _second,
    }
    for name, body in bodies.items():
        yield f"template <int n> static inline void {name}_{part.degree}(const Edge &e, int c) {{"
        yield f"  typedef lanes<W{part.degree}>::type V;"
        yield from body(part)
        yield "}"
    yield from _by_harmonics(part, "by_harmonics", second=False)
    yield from _by_harmonics(part, "second_by_harmonics", second=True)


def _product(path: Coupling, row: int, *factors: tuple[str, str], transposed: bool = False) -> str:
    """The sum over (matrix, vector) in ``factors`` of (matrix vector)[row], or of the transposed
    matrix."""
    return " + ".join(
        f"{matrix}[{slot} * EDGES] * {vector}{m3 if transposed else m1}"
        for matrix, vector in factors
        for m3, m1, slot in path.entries
        if row == (m1 if transposed else m3)
    )


def _rows(entries: Iterable[Entry]) -> tuple[list[int], list[int]]:
    """The m3 and the m1 that occur."""
    entries = list(entries)
    return sorted({m3 for m3, _, _ in entries}), sorted({m1 for _, m1, _ in entries})


def _forward(part: Part) -> Lines:
    for m1 in range(2 * part.degree + 1):
        yield f"  const V x{m1} = {part.source('x', m1)};"
    for path in part.paths:
        yield f"  {{ const V w = {part.weight('w', path)};"
        for m3 in _rows(path.entries)[0]:
            at = path.output + m3 * part.channels
            yield f"    add<V, n>(e.out + c + {at}, w * ({_product(path, m3, ('e.m', 'x'))}));"
        yield "  }"


def _first(part: Part) -> Lines:
    yield from _gradients(part, "")


def _second(part: Part) -> Lines:
    for m1 in range(2 * part.degree + 1):
        yield f"  const V u{m1} = {part.source('u_x', m1)};"
    yield from _gradients(part, "u")


def _gradients(part: Part, second: str) -> Lines:
    """By x and by w: first ones, w z and x . z, or second ones, w N^T g + v z and x . N^T g + u .
    z."""
    rows = range(2 * part.degree + 1)
    for m1 in rows:
        yield f"  const V x{m1} = {part.source('x', m1)};"
        yield f"  V d{m1} = {{}};"
    for path in part.paths:
        yield f"  {{ const V w = {part.weight('w', path)};"
        if second:
            yield f"    const V v = {part.weight('u_w', path)};"
        yield "    V s = {};"
        targets, sources = _rows(path.entries)
        for m3 in targets:
            yield f"    const V g{m3} = {part.target('g', path, m3)};"
        for m1 in sources:
            yield f"    {{ const V z = {_product(path, m1, ('e.m', 'g'), transposed=True)};"
            if second:
                yield f"      const V y = {_product(path, m1, ('e.m_u', 'g'), transposed=True)};"
                yield f"      s += u{m1} * z; s += x{m1} * y; d{m1} += v * z; d{m1} += w * y; }}"
            else:
                yield f"      s += x{m1} * z; d{m1} += w * z; }}"
        yield f"    if (e.by_w) store<V, n>(e.by_w + c + {path.weights}, s); }}"
    for m1 in rows:
        at = part.table.source_offset(part.degree) + m1 * part.channels
        yield f"  if (e.by_x) add<V, n>(e.by_x + c + {at}, d{m1});"


def _second_forward(part: Part) -> Lines:
    for m1 in range(2 * part.degree + 1):
        yield f"  const V x{m1} = {part.source('x', m1)}, u{m1} = {part.source('u_x', m1)};"
    for path in part.paths:
        yield f"  {{ const V w = {part.weight('w', path)}, v = {part.weight('u_w', path)};"
        targets, sources = _rows(path.entries)
        for m1 in sources:
            yield f"    const V a{m1} = w * u{m1} + v * x{m1}, b{m1} = w * x{m1};"
        for m3 in targets:
            at = path.output + m3 * part.channels
            yield f"    add<V, n>(e.out + c + {at}, {_product(path, m3, ('e.m', 'a'), ('e.m_u', 'b'))});"
        yield "  }"


def _by_harmonics(part: Part, name: str, *, second: bool) -> Lines:
    """By M's entries, the products g b or g a of a path summed over the channels; only then by the
    rows of the harmonics.

    The coefficients then cost once an edge. A path with many entries takes several turns, of whole
    rows m3.
    """
    width, channels = f"W{part.degree}", f"C{part.degree}"
    touched = sorted(
        {
            row
            for path in part.paths
            for *_, slot in path.entries
            for row, _ in part.table.slots[slot]
        }
    )
    yield f"static inline void {name}_{part.degree}(const Edge &e) {{"
    yield f"  typedef lanes<{width}>::type V;"
    yield "  V " + ", ".join(f"y{row} = {{}}" for row in touched) + ";"
    for path in part.paths:
        for turn in _turns(path):
            slots = sorted({slot for *_, slot in turn})
            yield "  { V " + ", ".join(f"q{slot} = {{}}" for slot in slots) + ";"
            yield f"    ROLLED for (int c = 0; c + {width} <= {channels}; c += {width}) {{"
            yield from _channel_products(part, path, turn, width, second=second)
            yield "    }"
            yield f"    if ({channels} % {width}) {{ const int c = {channels} - {channels} % {width};"
            yield from _channel_products(part, path, turn, f"{channels} % {width}", second=second)
            yield "    }"
            for slot in slots:
                for row, value in part.table.slots[slot]:
                    yield f"    y{row} += q{slot} * (real){value!r};"
            yield "  }"
    for row in touched:
        yield f"  e.by_y[{row}] += lanes<{width}>::total(y{row});"
    yield "}"


def _channel_products(
    part: Part, path: Coupling, turn: list[Entry], n: str, *, second: bool
) -> Lines:
    targets, sources = _rows(turn)
    yield f"      const V w = {part.weight('w', path, n)};"
    if second:
        yield f"      const V v = {part.weight('u_w', path, n)};"
    for m1 in sources:
        x, u = part.source("x", m1, n), part.source("u_x", m1, n)
        yield f"      const V b{m1} = {f'w * {u} + v * {x}' if second else f'w * {x}'};"
    for m3 in targets:
        yield f"      const V g{m3} = {part.target('g', path, m3, n)};"
    for m3, m1, slot in turn:
        yield f"      q{slot} += g{m3} * b{m1};"


def _turns(path: Coupling) -> Iterator[list[Entry]]:
    """The entries in parts of whole rows m3 that need at most ACCUMULATORS vectors (a longer row is
    a part of its own)."""
    turn: list[Entry] = []
    for _, members in groupby(path.entries, key=lambda entry: entry[0]):
        row = list(members)
        if turn and len({slot for *_, slot in turn + row}) > ACCUMULATORS:
            yield turn
            turn = []
        turn = turn + row
    if turn:
        yield turn
