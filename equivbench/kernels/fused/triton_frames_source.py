"""Writes the Triton source of what takes features into the frames of edges or back: derivatives of
the same form as in C++, node by node.

With features a in the frames of edges, weights w, elements d of Wigner matrices and features b of
nodes,

    S = sum over edges, ends, rows n and channels of q[n] t[n],    q[n] = w[n] a[n],    t[n] = sum_r
    d[n, r] b[r],

linear in each of the four. Into the frames the output is the derivative by a, back from them the
one by b. A name with a v before it is the change of what it names along the tangents that are
given: along these the derivatives are those of the sum of vq t + q vt.

A program is one warp. It has the rows b of one degree of a node, for one block of channels, and
keeps them in registers while it goes through the edges that have the node at an end; on this one
way it computes all derivatives that are asked for. The one by b it adds up over the edges and
writes once. Those by d and, back from the frames, by w are sums over channels, to which other
programs add too: each writes a share of its own. So nothing needs atomics, and the order of every
sum is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from equivbench.kernels.fused.frames_source import FrameRow, rows_of
from equivbench.kernels.fused.triton_text import (
    Accumulate,
    ChannelBlock,
    kernel_of_degrees,
    loop,
    pruned,
    total,
)
from equivbench.kernels.operations.edge_frames import FrameTurn

LETTERS = {"edge_features": "a", "weights": "w", "frames": "d", "node_features": "b"}
"""The arguments of S, and what they are called in it."""


def reached(tangents: frozenset[str]) -> frozenset[str]:
    """The arguments by which the derivatives along ``tangents`` are not zero: S is linear in each,
    and its change along the tangent of one does not depend on that one."""
    return frozenset(name for name in LETTERS if not tangents or tangents - {name})


@dataclass(frozen=True)
class TurnRequest:
    """Which kernel: ``tangents`` empty is the plain form; ``wanted`` are the arguments by which
    derivatives are asked for, of those that are reached."""

    turn: FrameTurn
    back: bool
    """From the frames, not into them."""
    tangents: frozenset[str]
    wanted: frozenset[str]
    accumulate: Accumulate
    block: int
    """Channels of a program, a power of two."""

    @property
    def output(self) -> str:
        """The argument by which the derivative is the output: without it that needs no gradient."""
        return "node_features" if self.back else "edge_features"

    @property
    def lanes(self) -> ChannelBlock:
        """The channels of a program."""
        return ChannelBlock(self.turn.channels, self.block, self.accumulate)

    @property
    def programs(self) -> int:
        """Programs of a node."""
        return (self.turn.degree + 1) * self.lanes.count

    @property
    def shares(self) -> Mapping[str, int]:
        """How many programs add to the derivatives of one edge by those of ``wanted`` that have no
        channels."""
        found = {"frames": self.turn.ends * self.lanes.count}
        if self.back:
            found["weights"] = self.programs
        return {name: count for name, count in found.items() if name in self.wanted}

    @property
    def pointers(self) -> list[str]:
        """The kernel's arguments, in order; the last are, for each end of an edge, the edges that
        have a node there."""
        given = [name for name in LETTERS if name != self.output or self.wanted - {self.output}]
        return [
            *given,
            *(f"tangent_{name}" for name in LETTERS if name in self.tangents),
            *(f"gradient_{name}" for name in LETTERS if name in self.wanted),
            *(f"{name}{end}" for end in range(self.turn.ends) for name in ("order", "starts")),
        ]


def write_turn(request: TurnRequest) -> str:
    """The source of a module that defines ``kernel``; it is launched on nodes times
    ``request.programs`` programs of one warp."""
    writer = _TurnWriter(request)
    bodies = [writer.body(degree) for degree in range(request.turn.degree + 1)]
    lines = [
        f"# {request.turn}, {'back' if request.back else 'into the frames'},"
        f" tangents {sorted(request.tangents)}, {sorted(request.wanted)}",
        *kernel_of_degrees(request.pointers, "node", request.lanes, bodies),
    ]
    return "\n".join(lines) + "\n"


class _TurnWriter:
    """Writes what a program does."""

    def __init__(self, request: TurnRequest) -> None:
        self.request, self.turn, self.lanes = request, request.turn, request.lanes
        self.back, self.wanted = request.back, request.wanted
        self.moved = {LETTERS[name] for name in request.tangents}
        """What changes along the tangents."""
        for product, factors in (("q", {"a", "w"}), ("t", {"d", "b"})):
            self.moved |= {product} if self.moved & factors else set()

    def body(self, degree: int) -> list[str]:
        """The lines for the rows of one degree."""
        rows = range(2 * degree + 1)
        before = [*self.load_node(degree), *(self.lanes.zero(f"sum{r}") for r in rows)]
        ends = [self.of_edge(degree, end) for end in range(self.turn.ends)]
        after: list[str] = []
        for r in rows if "node_features" in self.wanted else ():
            place = self.in_node("gradient_node_features", degree, r)
            after.append(self.lanes.store(place, f"sum{r}"))
        # From the end on: what is not read is not computed.
        read: set[str] = set()
        after = pruned(after, read)
        of_edges: list[str] = []
        for end, within in reversed(list(enumerate(ends))):
            first_and_last = [
                f"first = tl.load(starts{end} + node)",
                f"last = tl.load(starts{end} + node + 1)",
            ]
            edges = loop(pruned(within, read), {"edge": f"order{end}"})
            of_edges = [*first_and_last, *edges, *of_edges]
        return [*pruned(before, read), *of_edges, *after]

    def of_edge(self, degree: int, end: int) -> list[str]:
        """What is computed for one end of an edge."""
        lines: list[str] = []
        products: list[str] = []
        if self.back:
            lines += [self.lanes.number(v, f"{p} + edge") for v, p in self.variants("weights")]
        for kind, members in groupby(rows_of(self.turn, degree), key=lambda row: row.kind):
            same = list(members)
            to_kind = f"edge * {self.turn.weight_size} + {self.column(kind, end)}"
            if not self.back:
                lines += [
                    self.lanes.load(f"{variant}{kind}", f"{pointer} + {to_kind}")
                    for variant, pointer in self.variants("weights")
                ]
            for row in same:
                lines += self.of_row(row, degree, end)
            # The rows of m and -m have the same weights.
            found = [each for row in same for each in self.change(f"a{row.row}", f"t{row.row}")]
            products += found
            if "weights" in self.wanted and not self.back:
                lines.append(self.lanes.store(f"gradient_weights + {to_kind}", total(found)))
        if "weights" in self.wanted and self.back:
            programs, blocks = self.request.programs, self.lanes.count
            place = f"gradient_weights + edge * {programs} + {degree * blocks} + number"
            lines.append(f"tl.store({place}, tl.sum({total(products)}, axis=0))")
        return lines

    def of_row(self, row: FrameRow, degree: int, end: int) -> Iterator[str]:
        """What is computed for one row in the frame."""
        n, columns = row.row, range(2 * degree + 1)
        w = "w" if self.back else f"w{row.kind}"
        for variant, pointer in self.variants("frames"):
            for r in columns:
                place = f"{pointer} + edge * {self.turn.frame_size} + {row.element + r}"
                yield self.lanes.number(f"{variant}{n}_{r}", place)
        in_edge = f"edge * {self.turn.edge_size} + {self.column(n, end)}"
        for variant, pointer in self.variants("edge_features"):
            yield self.lanes.load(f"{variant}{n}", f"{pointer} + {in_edge}")
        yield f"q{n} = {w} * a{n}"
        yield f"t{n} = {total(f'd{n}_{r} * b{r}' for r in columns)}"
        if "q" in self.moved:
            yield f"vq{n} = {total(self.change(w, f'a{n}'))}"
        if "t" in self.moved:
            parts = (part for r in columns for part in self.change(f"d{n}_{r}", f"b{r}"))
            yield f"vt{n} = {total(parts)}"
        if "edge_features" in self.wanted:
            value = total(self.change(w, f"t{n}"))
            yield self.lanes.store(f"gradient_edge_features + {in_edge}", value)
        if "node_features" in self.wanted:
            for r in columns:
                yield f"sum{r} += {total(self.change(f'q{n}', f'd{n}_{r}'))}"
        if "frames" in self.wanted:
            blocks = self.lanes.count
            share = f"edge * {self.turn.ends * blocks} + {end * blocks} + number"
            for r in columns:
                place = f"({share}) * {self.turn.frame_size} + {row.element + r}"
                value = f"tl.sum({total(self.change(f'q{n}', f'b{r}'))}, axis=0)"
                yield f"tl.store(gradient_frames + {place}, {value})"

    def change(self, one: str, other: str) -> Iterator[str]:
        """The product of two of what S is made of or, along tangents, the parts of its change."""
        if not self.moved:
            yield f"{one} * {other}"
        if one[0] in self.moved:
            yield f"v{one} * {other}"
        if other[0] in self.moved:
            yield f"{one} * v{other}"

    def load_node(self, degree: int) -> Iterator[str]:
        """The rows of one degree of a node, and of their tangent."""
        for variant, pointer in self.variants("node_features"):
            for r in range(2 * degree + 1):
                yield self.lanes.load(f"{variant}{r}", self.in_node(pointer, degree, r))

    def in_node(self, pointer: str, degree: int, r: int) -> str:
        """Where a row of one degree begins in a node's row of ``pointer``."""
        channels = (degree**2 + r) * self.turn.channels
        return f"{pointer} + node * {self.turn.node_size} + {channels}"

    def column(self, row: int, end: int) -> int:
        """Where the channels of one end begin among the rows of an edge."""
        return (row * self.turn.ends + end) * self.turn.channels

    def variants(self, name: str) -> tuple[tuple[str, str], ...]:
        """(variable, pointer) of an argument and of its tangent."""
        return (LETTERS[name], name), (f"v{LETTERS[name]}", f"tangent_{name}")
