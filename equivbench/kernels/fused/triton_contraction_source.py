"""Writes the Triton source of a symmetric contraction: the same polynomials as in C++
(:mod:`equivbench.kernels.fused.polynomial`), node by node.

As there, a row of the output is a polynomial of the rows x of a node with coefficients c, a sum of
rows times further sums t, by Horner's rule. With a tangent of x or c, v is the tangent of t; with
the gradient g of the output, a is the gradient of g . output by t and b the tangent of a. A program
is one warp and has a block of channels; all that it computes of a node is in registers. Three
kernels:

- ``outputs``: the output, plain or along tangents. A program does one node;
- ``gradients``: the derivatives by x and by the weights. A program does a chunk of the nodes of one
  element, and writes a share of that element's gradient by the weights;
- ``shares``: adds up those shares, in their order.

Nothing needs atomics, and the order of every sum is fixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from equivbench.kernels.fused.polynomial import HornerSum, polynomials
from equivbench.kernels.fused.triton_text import Accumulate, ChannelBlock, loop, pruned, total
from equivbench.kernels.operations import SymmetricContraction

ContractionKernelKind = Literal["outputs", "gradients", "shares"]
INPUTS = ("x", "weights")


@dataclass(frozen=True)
class ContractionRequest:
    """Which kernel: ``tangents`` empty are the output and its first derivatives; ``wanted`` are the
    inputs by which ``gradients`` are asked for."""

    operation: SymmetricContraction
    kind: ContractionKernelKind
    tangents: frozenset[str]
    wanted: frozenset[str]
    accumulate: Accumulate
    block: int
    """Channels of a program, a power of two; of ``shares`` weights."""

    @property
    def lanes(self) -> ChannelBlock:
        """The channels, or weights, of a program."""
        operation = self.operation
        row = operation.weight_size if self.kind == "shares" else operation.channels
        return ChannelBlock(row, self.block, self.accumulate)

    @property
    def pointers(self) -> list[str]:
        """The kernel's arguments, in order."""
        if self.kind == "shares":
            return ["shares", "gradient_weights", "firsts"]
        given = [*INPUTS, *(f"tangent_{name}" for name in INPUTS if name in self.tangents)]
        if self.kind == "outputs":
            return [*given, "output", "elements"]
        made = {"x": "gradient_x", "weights": "shares"}
        wanted = [made[name] for name in INPUTS if name in self.wanted]
        return ["cotangent", *given, *wanted, "elements", "order", "begins", "ends"]


def write_contraction(request: ContractionRequest) -> str:
    """The source of a module that defines ``kernel``; it is launched on nodes, chunks or elements
    times ``request.lanes.count`` programs of one warp."""
    blocks = request.lanes.count
    lines = [
        f"# {request.kind} of {request.operation},"
        f" tangents {sorted(request.tangents)}, {sorted(request.wanted)}",
        "@triton.jit",
        f"def kernel({', '.join(request.pointers)}):",
        # 64 bits: rows times columns outgrow 32 from some million nodes on.
        f"    row = (tl.program_id(0) // {blocks}).to(tl.int64)",
    ]
    if request.kind == "outputs":
        body = _ContractionWriter(request).outputs()
    elif request.kind == "gradients":
        body = _ContractionWriter(request).gradients()
    else:
        body = _shares(request)
    whole = [*request.lanes.channel(f"(tl.program_id(0) % {blocks})"), *body]
    return "\n".join([*lines, *(f"    {line}" for line in whole)]) + "\n"


def _shares(request: ContractionRequest) -> list[str]:
    lanes, size = request.lanes, request.operation.weight_size
    body = [lanes.load("share", f"shares + chunk * {size}"), "gradient += share"]
    return [
        "first = tl.load(firsts + row)",
        "last = tl.load(firsts + row + 1)",
        lanes.zero("gradient"),
        "for chunk in tl.range(first, last):",
        *(f"    {line}" for line in body),
        lanes.store(f"gradient_weights + row * {size}", "gradient"),
    ]


class _ContractionWriter:
    """Writes what a program does for the nodes."""

    def __init__(self, request: ContractionRequest) -> None:
        self.table, self.tangents = polynomials(request.operation), request.tangents
        self.operation, self.wanted, self.lanes = request.operation, request.wanted, request.lanes
        self.along = bool(request.tangents)
        self.source_rows = range((request.operation.lmax + 1) ** 2)
        self.paths = range(len(request.operation.paths))
        self.known: set[int] = set()
        """Slots whose coefficients stand in the lines before."""
        self.left: Counter[int] = Counter()
        """What is still to be added to the gradient by the coefficient of a slot, in this row."""
        self.begun: set[int] = set()
        """Slots to whose gradients something was added, in this row."""

    def outputs(self) -> list[str]:
        """The output of one node."""
        lines = ["node = row", *self.load_node()]
        for target, polynomial in enumerate(self.table.rows):
            terms: list[str] = []
            for place, (row, factor) in enumerate(polynomial.products):
                name = f"{target}_{place}"
                lines += self.sums(factor, name)
                terms += (
                    self.along_product(row, factor, name) if self.along else [f"x{row} * t{name}"]
                )
            place_of_row = target * self.operation.channels
            to_row = f"output + node * {self.operation.target_size} + {place_of_row}"
            lines.append(self.lanes.store(to_row, total(terms)))
        return pruned(lines, set())

    def gradients(self) -> list[str]:
        """The gradients of a chunk of nodes."""
        before = [
            "first = tl.load(begins + row)",
            "last = tl.load(ends + row)",
            *(self.lanes.zero(f"e{path}") for path in self.paths),
        ]
        within = [*self.load_node(), *self.load_cotangent()]
        within += [self.lanes.zero(f"d{row}") for row in self.source_rows]
        for target, polynomial in enumerate(self.table.rows):
            self.left, self.begun = Counter(_slots(polynomial)), set()
            for place, (row, factor) in enumerate(polynomial.products):
                name = f"{target}_{place}"
                within += self.sums(factor, name)
                within += self.product_gradients(row, factor, name, f"g{target}", None)
        if "x" in self.wanted:
            for row in self.source_rows:
                to_row = f"gradient_x + node * {self.operation.source_size}"
                to_row += f" + {row * self.operation.channels}"
                within.append(self.lanes.store(to_row, f"d{row}"))
        after = []
        if "weights" in self.wanted:
            for path in self.paths:
                to_path = f"shares + row * {self.operation.weight_size}"
                to_path += f" + {path * self.operation.channels}"
                after.append(self.lanes.store(to_path, f"e{path}"))
        # From the end on: what is not read is not computed.
        read: set[str] = set()
        after = pruned(after, read)
        within = pruned(within, read)
        # The range of the loop.
        read |= {"first", "last"}
        return [*pruned(before, read), *loop(within, {"node": "order"}), *after]

    def load_node(self) -> Iterator[str]:
        """The rows of x of one node and the weights of its element, with their tangents."""
        # Read for each node, though a chunk's are all of one element: in registers they would leave
        # little room for anything else.
        yield "element = tl.load(elements + node)"
        for variant, pointer in (("x", "x"), ("vx", "tangent_x")):
            for row in self.source_rows:
                place = f"{pointer} + node * {self.operation.source_size}"
                place += f" + {row * self.operation.channels}"
                yield self.lanes.load(f"{variant}{row}", place)
        for variant, pointer in (("w", "weights"), ("vw", "tangent_weights")):
            for path in self.paths:
                place = f"{pointer} + element * {self.operation.weight_size}"
                place += f" + {path * self.operation.channels}"
                yield self.lanes.load(f"{variant}{path}", place)

    def load_cotangent(self) -> Iterator[str]:
        """The rows of g of one node."""
        for target in range(len(self.table.rows)):
            place = f"cotangent + node * {self.operation.target_size}"
            place += f" + {target * self.operation.channels}"
            yield self.lanes.load(f"g{target}", place)

    def coefficients(self, polynomial: HornerSum) -> Iterator[str]:
        """Those of a sum, combinations of weights, where they do not stand there yet."""
        for slot, _ in polynomial.coefficients:
            if slot not in self.known:
                self.known.add(slot)
                for coefficient, weight in (("c", "w"), ("vc", "vw")):
                    parts = (
                        f"{value!r} * {weight}{path}" for path, value in self.table.slots[slot]
                    )
                    yield f"{coefficient}{slot} = {total(parts)}"

    def sums(self, polynomial: HornerSum, name: str) -> Iterator[str]:
        """t of a sum and of all sums in it, and along tangents their v, where there is one."""
        for place, (_, factor) in enumerate(polynomial.products):
            yield from self.sums(factor, f"{name}_{place}")
        yield from self.coefficients(polynomial)
        terms = [(sign, f"c{slot}") for slot, sign in polynomial.coefficients]
        moved: list[tuple[int, str]] = []
        if "weights" in self.tangents:
            moved += [(sign, f"vc{slot}") for slot, sign in polynomial.coefficients]
        for place, (row, factor) in enumerate(polynomial.products):
            part = f"{name}_{place}"
            terms.append((1, f"x{row} * t{part}"))
            if self.along:
                moved += [(1, term) for term in self.along_product(row, factor, part)]
        yield f"t{name} = {_signed(terms)}"
        if moved:
            yield f"v{name} = {_signed(moved)}"

    def along_product(self, row: int, factor: HornerSum, name: str) -> Iterator[str]:
        """The tangent of a row of x times a sum."""
        if "x" in self.tangents:
            yield f"vx{row} * t{name}"
        if self.moves(factor):
            yield f"x{row} * v{name}"

    def moves(self, polynomial: HornerSum) -> bool:
        """Whether a sum has a tangent."""
        return "weights" in self.tangents or ("x" in self.tangents and bool(polynomial.products))

    def product_gradients(
        self, row: int, factor: HornerSum, name: str, by_sum: str, moved: str | None
    ) -> Iterator[str]:
        """What a row of x times a sum adds to the gradients, where that by the product is
        ``by_sum`` and the tangent of this ``moved``."""
        by_row = [] if self.along else [f"{by_sum} * t{name}"]
        by_row += [f"{by_sum} * v{name}"] if self.moves(factor) else []
        by_row += [f"{moved} * t{name}"] if moved else []
        if by_row:
            yield f"d{row} += {total(by_row)}"
        yield f"a{name} = {by_sum} * x{row}"
        by_factor, moved_factor = f"a{name}", None
        if "x" in self.tangents:
            tangents = [f"{by_sum} * vx{row}", *([f"{moved} * x{row}"] if moved else ())]
            moved_factor = f"b{name}"
            yield f"{moved_factor} = {total(tangents)}"
        yield from self.by_coefficients(factor, moved_factor if self.along else by_factor)
        for place, (inner, part) in enumerate(factor.products):
            part_name = f"{name}_{place}"
            yield from self.product_gradients(inner, part, part_name, by_factor, moved_factor)

    def by_coefficients(self, polynomial: HornerSum, by_sum: str | None) -> Iterator[str]:
        """What a sum adds to the gradients by its coefficients, where that by the sum is
        ``by_sum``, None for zero; what this row adds to one is added to those by the weights as
        soon as it is whole."""
        for slot, sign in polynomial.coefficients if by_sum else ():
            signed = by_sum if sign > 0 else f"-{by_sum}"
            yield f"k{slot} {'+=' if slot in self.begun else '='} {signed}"
            self.begun.add(slot)
            self.left[slot] -= 1
            if not self.left[slot]:
                for path, value in self.table.slots[slot]:
                    yield f"e{path} += {value!r} * k{slot}"


def _slots(polynomial: HornerSum) -> Iterator[int]:
    """The slots of the coefficients of a polynomial, one as often as it occurs."""
    yield from (slot for slot, _ in polynomial.coefficients)
    for _, factor in polynomial.products:
        yield from _slots(factor)


def _signed(terms: Iterable[tuple[int, str]]) -> str:
    written = "".join(f" {'+' if sign > 0 else '-'} {term}" for sign, term in terms)
    return written.removeprefix(" + ").strip()
