"""Writes the Triton source of one operation along edges: sparse sums unrolled with their constants.

The operation, its gradient and its second gradient are derivatives of one form, linear in each
argument,

    S = sum over edges j -> i, paths p, channels of w_p sum_rs M_p[r, s] g_i[p, r] x_j[s],    M_p[r,
    s] = sum_k C_p[r, s, k] Y[k].

A *term* says which of x, Y and w are replaced by their tangents: the plain form has one term with
none replaced, the form whose derivatives are the second gradient has one term for each tangent
given. Two kernels take derivatives of such a sum:

- ``centres``: by g, for the centre of the edges: the operation itself. A program sums the edges
  that end at one node.
- ``neighbours``: by x, Y and w. A program takes the edges that leave one node, whose x it keeps in
  registers.

So nothing of size [edges, channels] is written but the gradient by the weights, nothing needs
atomics, and the order of every sum is fixed. A program is one warp: it does the paths from some
rows of x, of a convolution those of one degree, for one block of channels, so that no value is read
twice for having been split, a lane keeps its sums in registers, and no warp waits for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from equivbench.kernels.fused.coupling import Coupling, EdgeOperation, SourceFeatures, couplings
from equivbench.kernels.fused.triton_text import Accumulate, ChannelBlock, loop, total

TritonKernelKind = Literal["centres", "neighbours"]
INPUTS = ("x", "harmonics", "weights")
LETTERS = {"x": "x", "harmonics": "y", "weights": "w"}
GROUPS = ("order", "others", "starts")
"""The pointers of :class:`equivbench.kernels.fused.groups.Groups`."""
Term = frozenset[str]
"""The inputs replaced by their tangents."""


@dataclass(frozen=True)
class TritonRequest:
    """Which kernel: ``tangents`` empty is the plain form; ``wanted`` are the gradients that
    ``neighbours`` writes."""

    operation: EdgeOperation
    kind: TritonKernelKind
    tangents: frozenset[str]
    wanted: frozenset[str]
    accumulate: Accumulate
    block: int
    """Channels of a program, a power of two."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of the form, in the order of the inputs."""
        return tuple(frozenset((name,)) for name in INPUTS if name in self.tangents) or (
            frozenset(),
        )

    @property
    def pointers(self) -> list[str]:
        """The kernel's arguments, in order."""
        given = [*INPUTS, *(f"tangent_{name}" for name in INPUTS if name in self.tangents)]
        if self.kind == "centres":
            return [*given, "output", *GROUPS]
        return [
            "cotangent",
            *given,
            *(f"gradient_{name}" for name in INPUTS if name in self.wanted),
            *GROUPS,
        ]


def parts(operation: EdgeOperation, block: int) -> tuple[tuple[int, int], ...]:
    """What is to be done for a node, a program each: (number of the rows of x, number of the block
    of channels)."""
    return tuple(
        (part.number, number)
        for part in couplings(operation).sources
        for number in range(-(-part.channels // block))
    )


def write(request: TritonRequest) -> str:
    """The source of a module that defines ``kernel``; it is launched on nodes times parts programs
    of one warp."""
    todo = parts(request.operation, request.block)
    lines = [
        f"# {request.kind} of {request.operation},"
        f" tangents {sorted(request.tangents)}, {sorted(request.wanted)}"
    ]
    for part in couplings(request.operation).sources:
        lines += [*_RowsWriter(request, part, len(todo)).function(), ""]
    arguments = ", ".join(request.pointers)
    lines += [
        "@triton.jit",
        f"def kernel({arguments}):",
        f"    part = tl.program_id(0) % {len(todo)}",
    ]
    # 64 bits: rows times columns outgrow 32 from three million edges on.
    lines += [f"    node = (tl.program_id(0) // {len(todo)}).to(tl.int64)"]
    lines += ["    first = tl.load(starts + node)", "    last = tl.load(starts + node + 1)"]
    for place, (rows, number) in enumerate(todo):
        lines += [f"    {'elif' if place else 'if'} part == {place}:"]
        lines += [f"        rows{rows}({arguments}, node, first, last, {number}, {place})"]
    return "\n".join(lines) + "\n"


class _RowsWriter:
    """Writes the function for the paths from some rows of x."""

    def __init__(self, request: TritonRequest, part: SourceFeatures, parts: int) -> None:
        self.table = couplings(request.operation)
        self.request, self.part, self.parts, self.slots = request, part, parts, self.table.slots
        self.terms, self.paths, self.harmonics = request.terms, part.paths, part.harmonics
        self.rows = range(part.height)
        self.columns = self.table.harmonics_size
        self.lanes = ChannelBlock(part.channels, request.block, request.accumulate)

    def function(self) -> Iterator[str]:
        """The lines of the function."""
        arguments = ", ".join(self.request.pointers)
        yield "@triton.jit"
        constants = "NUMBER: tl.constexpr, PART: tl.constexpr"
        yield f"def rows{self.part.number}({arguments}, node, first, last, {constants}):"
        yield from (f"    {line}" for line in self.lanes.channel("NUMBER"))
        body = self.centres() if self.request.kind == "centres" else self.neighbours()
        yield from (f"    {line}" for line in body)

    def centres(self) -> Iterator[str]:
        """Derivative by g: the operation."""
        target_size = self.request.operation.target_size
        for n, (path, *_) in enumerate(self.part.outputs):
            yield from (self.lanes.zero(f"a{n}_{r}") for r in range(path.height))
        body = [*self.load_harmonics(), *self.load_source("other")]
        body += self.matrices((variant for variant, _ in self.variants("harmonics")), self.paths)
        for n, paths in enumerate(self.part.outputs):
            for path in paths:
                body += self.load_weights(path)
                for r in range(path.height):
                    body.append(f"a{n}_{r} += {total(self.weighted_row(path, r))}")
        yield from loop(body, {"edge": "order", "other": "others"})
        for n, (path, *_) in enumerate(self.part.outputs):
            for r in range(path.height):
                column = self.part.target(path, r)
                yield self.lanes.store(f"output + node * {target_size} + {column}", f"a{n}_{r}")

    def weighted_row(self, path: Coupling, r: int) -> Iterator[str]:
        """w (M x)[r] for each variant of w, summed over the terms with it."""
        for variant, _ in self.variants("weights"):
            products = [
                f"m{_variable('harmonics', term)}{slot} * {_variable('x', term)}{s}"
                for term in self.terms
                if _variable("weights", term) == variant
                for row, s, slot in path.entries
                if row == r
            ]
            yield f"{variant} * ({total(products)})"

    def neighbours(self) -> Iterator[str]:
        """Derivatives by x, Y and w: the gradients."""
        operation, wanted = self.request.operation, self.request.wanted
        yield from self.load_source("node")
        if "x" in wanted:
            yield from (self.lanes.zero(f"a{s}") for s in self.rows)
        body = list(self.load_harmonics())
        by_x = [_variable("harmonics", term) for term in self.by("x")]
        body += self.matrices(dict.fromkeys(by_x), self.paths)
        if "harmonics" in wanted:
            body += [self.lanes.zero(f"b{k}") for k in self.harmonics]
        for path in self.paths:
            body += self.load_weights(path)
            for r in range(path.height):
                column = self.part.target(path, r)
                place = f"cotangent + other * {operation.target_size} + {column}"
                body.append(self.lanes.load(f"g{r}", place))
            body += self.path_gradients(path)
        for k in self.harmonics if "harmonics" in wanted else ():
            place = f"gradient_harmonics + (edge * {self.parts} + PART) * {self.columns} + {k}"
            body.append(f"tl.store({place}, tl.sum(b{k}, axis=0))")
        yield from loop(body, {"edge": "order", "other": "others"})
        for s in self.rows if "x" in wanted else ():
            column = self.part.source(s)
            yield self.lanes.store(
                f"gradient_x + node * {operation.source_size} + {column}", f"a{s}"
            )

    def path_gradients(self, path: Coupling) -> Iterator[str]:
        """What one path adds to the gradients of an edge."""
        for term in self.by("x"):
            for s in sorted({at for _, at, _ in path.entries}):
                column = (
                    f"m{_variable('harmonics', term)}{slot} * g{r}"
                    for r, at, slot in path.entries
                    if at == s
                )
                yield f"a{s} += {_variable('weights', term)} * ({total(column)})"
        # q[k] = sum_rs C[r, s, k] g[r] x[s] gives the gradients by w (times Y) and by Y (times w)
        # alike.
        rows = self.table.rows([path])
        for variant in dict.fromkeys(
            _variable("x", term) for term in (*self.by("harmonics"), *self.by("weights"))
        ):
            shares: dict[int, list[str]] = {}
            for r, s, slot in path.entries:
                shares.setdefault(slot, []).append(f"g{r} * {variant}{s}")
            yield from (f"p{slot} = {total(products)}" for slot, products in shares.items())
            for k in rows:
                scaled = (
                    f"{value!r} * p{slot}"
                    for slot in shares
                    for row, value in self.slots[slot]
                    if row == k
                )
                yield f"q{variant}{k} = {total(scaled)}"
        for term in self.by("harmonics"):
            yield from (
                f"b{k} += {_variable('weights', term)} * q{_variable('x', term)}{k}" for k in rows
            )
        if self.by("weights"):
            pairs = [
                (_variable("harmonics", term), _variable("x", term)) for term in self.by("weights")
            ]
            products = [f"{harmonic}{k} * q{x}{k}" for harmonic, x in pairs for k in rows]
            place = (
                f"gradient_weights + edge * {self.request.operation.weight_size} + {path.weights}"
            )
            yield self.lanes.store(place, total(products))

    def by(self, name: str) -> list[Term]:
        """The terms whose derivative by ``name`` is asked for and not zero."""
        return (
            [term for term in self.terms if name not in term] if name in self.request.wanted else []
        )

    def variants(self, name: str) -> list[tuple[str, str]]:
        """(variable, pointer) of an input and of its tangent, those that are read."""
        # The gradient by an input does not read it: the form is linear.
        read = [term for other in INPUTS if other != name for term in self.by(other)]
        if self.request.kind == "centres":
            read = list(self.terms)
        given = [(LETTERS[name], name)] if any(name not in term for term in read) else []
        return given + (
            [(f"v{LETTERS[name]}", f"tangent_{name}")] if any(name in term for term in read) else []
        )

    def matrices(self, variants: Iterable[str], paths: Iterable[Coupling]) -> Iterator[str]:
        """The different entries of the matrices, numbers of one edge, for each variant of the
        harmonics."""
        slots = sorted({slot for path in paths for _, _, slot in path.entries})
        for variant in variants:
            for slot in slots:
                terms = (f"{value!r} * {variant}{k}" for k, value in self.slots[slot])
                yield f"m{variant}{slot} = {total(terms)}"

    def load_harmonics(self) -> Iterator[str]:
        """Numbers of one edge."""
        for variant, pointer in self.variants("harmonics"):
            for k in self.harmonics:
                place = f"{pointer} + edge * {self.columns} + {k}"
                yield self.lanes.number(f"{variant}{k}", place)

    def load_source(self, row: str) -> Iterator[str]:
        """The features of one node, a block of channels for each component."""
        for variant, pointer in self.variants("x"):
            for s in self.rows:
                column = self.part.source(s)
                place = f"{pointer} + {row} * {self.request.operation.source_size} + {column}"
                yield self.lanes.load(f"{variant}{s}", place)

    def load_weights(self, path: Coupling) -> Iterator[str]:
        """The weights of one edge and path, a block of channels."""
        for variant, pointer in self.variants("weights"):
            yield self.lanes.load(
                variant, f"{pointer} + edge * {self.request.operation.weight_size} + {path.weights}"
            )


def _variable(name: str, term: Term) -> str:
    """What an input is called in a term."""
    return ("v" if name in term else "") + LETTERS[name]
