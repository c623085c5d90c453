"""Writes the Triton source of Allegro's edge product: the same sparse matrix as in C++
(:mod:`equivbench.kernels.fused.product_source`), centre by centre.

With the sums e_i = sum over edges of f_l Y_l of a centre's edges, f their factors of the harmonics,
the operation is the derivative by g of

    S = sum over edges, paths p, channels of w_p sum_rsk C_p[r, s, k] g[r] x[s] e[k],

linear in each argument. Its *terms* say, as for the operations along edges
(:mod:`equivbench.kernels.fused.triton_source`), which of x, e and w are replaced by their tangents.
Four kernels, each with a program of one warp for a centre and a block of channels:

- ``around``: e, and its tangent;
- ``products``: the derivative by g. A program does the rows of one target degree;
- ``gradients``: by x, w, e and the tangent of e. A program does the rows of x of one degree, and
  adds up g x^T over the edges, by path and row of e, before it goes back to w and e;
- ``unravel``: from the gradients by e and its tangent to those by Y and f of each edge.

Nothing needs atomics, and the order of every sum is fixed: what several programs add to, each
writes a share of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from equivbench.kernels.fused.native_source import Entry
from equivbench.kernels.fused.product_source import Slot, product_table
from equivbench.kernels.fused.triton_source import Term
from equivbench.kernels.fused.triton_text import (
    Accumulate,
    ChannelBlock,
    kernel_of_degrees,
    loop,
    pruned,
    total,
)
from equivbench.kernels.operations import EdgeProduct

ProductKernelKind = Literal["around", "products", "gradients", "unravel"]
INPUTS = ("x", "harmonics", "environment", "weights")
OF_AROUND = frozenset(("harmonics", "environment"))
"""The inputs that e is made of."""
_LETTERS = {"x": "x", "around": "e", "weights": "w", "harmonics": "y", "environment": "f"}
_GROUPS = ("order", "starts")
"""The pointers of :class:`equivbench.kernels.fused.groups.Centres`."""


def product_terms(tangents: frozenset[str]) -> tuple[Term, ...]:
    """The terms of S along ``tangents`` of the inputs; of the plain form one with none replaced."""
    moved = {"around" if name in OF_AROUND else name for name in tangents}
    return tuple(frozenset((name,)) for name in ("x", "around", "weights") if name in moved) or (
        frozenset(),
    )


def reached(tangents: frozenset[str]) -> frozenset[str]:
    """The inputs by which the derivatives of S along ``tangents`` are not zero."""
    terms = product_terms(tangents)
    found = {name for name in ("x", "weights") if any(name not in term for term in terms)}
    if any("around" not in term for term in terms):
        found |= OF_AROUND
    # e is linear in both: along a tangent of one it depends on the other.
    return frozenset(found | {name for name in OF_AROUND if OF_AROUND - {name} <= tangents})


@dataclass(frozen=True)
class ProductRequest:
    """Which kernel: ``tangents`` empty is the plain form; ``wanted`` are the inputs whose gradients
    are asked for, of those that are reached."""

    operation: EdgeProduct
    kind: ProductKernelKind
    tangents: frozenset[str]
    wanted: frozenset[str]
    accumulate: Accumulate
    block: int
    """Channels of a program, a power of two."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of the form."""
        return product_terms(self.tangents)

    @property
    def around_moves(self) -> bool:
        """Whether e has a tangent."""
        return bool(self.tangents & OF_AROUND)

    @property
    def gradients_around(self) -> tuple[str, ...]:
        """Which of the gradients by e and by its tangent those of Y and f are made of."""
        wanted = self.wanted & OF_AROUND
        by_around = bool(wanted) and any("around" not in term for term in self.terms)
        by_tangent = any(self.crosses(name) for name in wanted)
        return ("around",) * by_around + ("tangent_around",) * by_tangent

    def crosses(self, name: str) -> bool:
        """Whether the gradient by ``name``, Y or f, has a part by the tangent of the other."""
        return OF_AROUND - {name} <= self.tangents

    @property
    def lanes(self) -> ChannelBlock:
        """The channels of a program."""
        return ChannelBlock(self.operation.channels, self.block, self.accumulate)

    @property
    def programs(self) -> int:
        """Programs of a centre."""
        degrees = self.operation.lmax + 1 if self.kind in ("products", "gradients") else 1
        return degrees * self.lanes.count

    @property
    def pointers(self) -> list[str]:
        """The kernel's arguments, in order."""
        of_around = [*_with_tangents(("harmonics", "environment"), self.tangents)]
        moved = self.tangents | ({"around"} if self.around_moves else set())
        of_products = [*_with_tangents(("x", "around", "weights"), moved)]
        by_around = [f"gradient_{name}" for name in self.gradients_around]
        tangent = ["tangent_around"] * self.around_moves
        wanted = {name: [f"gradient_{name}"] * (name in self.wanted) for name in INPUTS}
        own = {
            "around": [*of_around, "around", *tangent],
            "products": [*of_products, "output"],
            "gradients": [
                *("cotangent", *of_products),
                *(*wanted["x"], *by_around, *wanted["weights"]),
            ],
            "unravel": [*of_around, *by_around, *wanted["harmonics"], *wanted["environment"]],
        }
        return [*own[self.kind], *_GROUPS]


def _with_tangents(names: Iterable[str], tangents: Iterable[str]) -> Iterator[str]:
    given = frozenset(tangents)
    for name in names:
        yield from (name, f"tangent_{name}") if name in given else (name,)


def write_product(request: ProductRequest) -> str:
    """The source of a module that defines ``kernel``; it is launched on centres times
    ``request.programs`` programs of one warp."""
    writer, degrees = _ProductWriter(request), request.programs // request.lanes.count
    bodies = [writer.body(degree) for degree in range(degrees)]
    lines = [
        f"# {request.kind} of {request.operation},"
        f" tangents {sorted(request.tangents)}, {sorted(request.wanted)}",
        *kernel_of_degrees(request.pointers, "centre", request.lanes, bodies),
    ]
    return "\n".join(lines) + "\n"


class _ProductWriter:
    """Writes what a program does."""

    def __init__(self, request: ProductRequest) -> None:
        self.request, self.lanes = request, request.lanes
        self.table, self.terms = product_table(request.operation), request.terms
        self.channels, self.degrees = request.operation.channels, request.operation.lmax + 1
        self.rows = range(self.degrees**2)
        self.features = self.degrees**2 * self.channels

    def body(self, degree: int) -> list[str]:
        """The lines of a program, of those of one degree where a kernel has several."""
        if self.request.kind == "around":
            before, within, after = self.around()
        elif self.request.kind == "products":
            before, within, after = self.products(degree)
        elif self.request.kind == "gradients":
            before, within, after = self.gradients(degree)
        else:
            before, within, after = self.unravel()
        # From the end on: what is not read is not computed.
        read = {"edge", "channel", "inside"}
        after = pruned(after, read)
        within = pruned(within, read)
        return [
            "first = tl.load(starts + centre)",
            "last = tl.load(starts + centre + 1)",
            *(*pruned(before, read), *loop(within, {"edge": "order"}), *after),
        ]

    def around(self) -> tuple[list[str], list[str], list[str]]:
        """e and its tangent, added up over the edges."""
        sums = ("around", "tangent_around") if self.request.around_moves else ("around",)
        before: list[str] = []
        after: list[str] = []
        within = [*self.load_harmonics(), *self.load_factors()]
        for name in sums:
            for degree in range(self.degrees):
                for k in _rows_of(degree):
                    total_of = f"s{'v' * (name != 'around')}{k}"
                    before.append(self.lanes.zero(total_of))
                    within.append(f"{total_of} += {total(self.around_of(name, degree, k))}")
                    place = f"{name} + centre * {self.features} + {k * self.channels}"
                    after.append(self.lanes.store(place, total_of))
        return before, within, after

    def around_of(self, name: str, degree: int, k: int) -> Iterator[str]:
        """What an edge adds to row k of e, or of its tangent."""
        if name == "around":
            yield f"f{degree} * y{k}"
            return
        if "environment" in self.request.tangents:
            yield f"vf{degree} * y{k}"
        if "harmonics" in self.request.tangents:
            yield f"f{degree} * vy{k}"

    def products(self, degree: int) -> tuple[list[str], list[str], list[str]]:
        """Derivative by g: the rows of one target degree."""
        entries = [entry for entry in self.table.entries if entry[0] in _rows_of(degree)]
        before = [*self.load_sums(), *self.matrices(entries, self.terms)]
        within = list(self.load_features("x"))
        for row in _rows_of(degree):
            products = (
                f"{matrix}{slot} * {x}{source}"
                for matrix, x in self.matrix_of_x(self.terms)
                for target, source, slot in entries
                if target == row
            )
            place = f"output + edge * {self.features} + {row * self.channels}"
            within.append(self.lanes.store(place, total(products)))
        return before, within, []

    def gradients(self, degree: int) -> tuple[list[str], list[str], list[str]]:
        """Derivatives by x, for the rows of one degree, and what they give for those by e and w."""
        request, wanted = self.request, self.request.wanted
        entries = [entry for entry in self.table.entries if entry[1] in _rows_of(degree)]
        sums = self.sums_of(entries)
        by_x = self.by("x")
        before = [*self.load_sums(), *self.matrices(entries, by_x)]
        within = [*self.load_cotangent(), *self.load_features("x")]
        for source in _rows_of(degree) if "x" in wanted else ():
            products = (
                f"{matrix}{slot} * g{target}"
                for matrix, _ in self.matrix_of_x(by_x)
                for target, at, slot in entries
                if at == source
            )
            place = f"gradient_x + edge * {self.features} + {source * self.channels}"
            within.append(self.lanes.store(place, total(products)))
        for x in ("x", "vx"):
            before += [self.lanes.zero(f"q{x}{path}_{k}") for path, k in sums]
            within += [f"p{x}{r}_{s} = g{r} * {x}{s}" for r, s, _ in entries]
            for (path, k), parts in sums.items():
                products = (f"{value!r} * p{x}{r}_{s}" for r, s, value in parts)
                within.append(f"q{x}{path}_{k} += {total(products)}")
        after = list(self.load_sums())
        place = f"(centre * {self.degrees} + {degree}) * {self.features}"
        for name in request.gradients_around:
            # The derivative by the tangent of e is that of the plain form by e.
            terms = self.by("around") if name == "around" else (frozenset[str](),)
            for k in self.rows:
                products = (
                    f"{_variable('weights', term)}{path} * q{_variable('x', term)}{path}_{k}"
                    for term in terms
                    for path, row in sums
                    if row == k
                )
                to_row = f"gradient_{name} + {place} + {k * self.channels}"
                after.append(self.lanes.store(to_row, total(products)))
        paths = request.operation.paths
        for path in dict.fromkeys(path for path, _ in sums) if "weights" in wanted else ():
            products = (
                f"{_variable('around', term)}{k} * q{_variable('x', term)}{path}_{k}"
                for term in self.by("weights")
                for other, k in sums
                if other == path
            )
            to_path = f"(centre * {len(paths)} + {path}) * {self.channels}"
            after.append(self.lanes.store(f"gradient_weights + {to_path}", total(products)))
        return before, within, after

    def unravel(self) -> tuple[list[str], list[str], list[str]]:
        """Derivatives by Y and f from those by e and its tangent."""
        request, blocks = self.request, self.lanes.count
        letters = {"around": "a", "tangent_around": "b"}
        before: list[str] = []
        for name in request.gradients_around:
            for k in self.rows:
                before.append(self.lanes.zero(f"{letters[name]}{k}"))
                for degree in range(self.degrees):
                    place = f"(centre * {self.degrees} + {degree}) * {self.features}"
                    to_row = f"gradient_{name} + {place} + {k * self.channels}"
                    before += [
                        self.lanes.load(f"share{letters[name]}{k}_{degree}", to_row),
                        f"{letters[name]}{k} += share{letters[name]}{k}_{degree}",
                    ]
        within = [*self.load_harmonics(), *self.load_factors()]
        for degree in range(self.degrees):
            for k in _rows_of(degree) if "harmonics" in request.wanted else ():
                products = (
                    f"{gradient}{k} * {variant}{degree}"
                    for gradient, variant in self.sides("harmonics")
                )
                place = f"gradient_harmonics + (edge * {blocks} + number) * {len(self.rows)} + {k}"
                within.append(f"tl.store({place}, tl.sum({total(products)}, axis=0))")
            if "environment" in request.wanted:
                products = (
                    f"{gradient}{k} * {variant}{k}"
                    for gradient, variant in self.sides("environment")
                    for k in _rows_of(degree)
                )
                place = f"edge * {self.degrees * self.channels} + {degree * self.channels}"
                within.append(self.lanes.store(f"gradient_environment + {place}", total(products)))
        return before, within, []

    def sides(self, name: str) -> Iterator[tuple[str, str]]:
        """(gradient by e or by its tangent, what it is multiplied by) of the gradient by Y or f."""
        (other,) = OF_AROUND - {name}
        if "around" in self.request.gradients_around:
            yield "a", _LETTERS[other]
        if self.request.crosses(name):
            yield "b", f"v{_LETTERS[other]}"

    def by(self, name: str) -> tuple[Term, ...]:
        """The terms whose derivative by ``name`` is not zero."""
        return tuple(term for term in self.terms if name not in term)

    def sums_of(
        self, entries: Sequence[Entry]
    ) -> Mapping[tuple[int, int], list[tuple[int, int, float]]]:
        """By (path, row of e) the (row of g, row of x, coefficient) whose products add up there."""
        found: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
        for target, source, slot in entries:
            for path, row, value in self.table.slots[slot]:
                found.setdefault((path, row), []).append((target, source, value))
        return found

    def matrix_of_x(self, terms: Iterable[Term]) -> Iterator[tuple[str, str]]:
        """(matrix, what of x it is multiplied by) for ``terms``, those with the same x together."""
        for x in dict.fromkeys(_variable("x", term) for term in terms):
            yield f"m{x}", x

    def matrices(self, entries: Iterable[Entry], terms: Sequence[Term]) -> Iterator[str]:
        """The different entries of the matrices, a block of channels each."""
        for matrix, x in self.matrix_of_x(terms):
            for slot in sorted({slot for *_, slot in entries}):
                factors = [
                    (_variable("weights", term), _variable("around", term))
                    for term in terms
                    if _variable("x", term) == x
                ]
                yield f"{matrix}{slot} = {total(_entry(self.table.slots[slot], factors))}"

    def load_sums(self) -> Iterator[str]:
        """The weights of the paths, and e of the centre, with their tangents."""
        for variant, pointer in (("w", "weights"), ("vw", "tangent_weights")):
            for path in range(len(self.request.operation.paths)):
                yield self.lanes.load(f"{variant}{path}", f"{pointer} + {path * self.channels}")
        for variant, pointer in (("e", "around"), ("ve", "tangent_around")):
            for k in self.rows:
                place = f"{pointer} + centre * {self.features} + {k * self.channels}"
                yield self.lanes.load(f"{variant}{k}", place)

    def load_features(self, name: str) -> Iterator[str]:
        """The rows of x of one edge, and of its tangent."""
        for variant, pointer in ((name, name), (f"v{name}", f"tangent_{name}")):
            for row in self.rows:
                place = f"{pointer} + edge * {self.features} + {row * self.channels}"
                yield self.lanes.load(f"{variant}{row}", place)

    def load_cotangent(self) -> Iterator[str]:
        """The rows of g of one edge."""
        for row in self.rows:
            place = f"cotangent + edge * {self.features} + {row * self.channels}"
            yield self.lanes.load(f"g{row}", place)

    def load_harmonics(self) -> Iterator[str]:
        """Numbers of one edge, and their tangents."""
        for variant, pointer in (("y", "harmonics"), ("vy", "tangent_harmonics")):
            for k in self.rows:
                yield self.lanes.number(
                    f"{variant}{k}", f"{pointer} + edge * {len(self.rows)} + {k}"
                )

    def load_factors(self) -> Iterator[str]:
        """f of one edge, and its tangent."""
        for variant, pointer in (("f", "environment"), ("vf", "tangent_environment")):
            for degree in range(self.degrees):
                place = f"edge * {self.degrees * self.channels} + {degree * self.channels}"
                yield self.lanes.load(f"{variant}{degree}", f"{pointer} + {place}")


def _rows_of(degree: int) -> range:
    """The rows of a degree."""
    return range(degree**2, (degree + 1) ** 2)


def _variable(name: str, term: Term) -> str:
    """What an argument of S is called in a term."""
    return ("v" if name in term else "") + _LETTERS[name]


def _entry(slot: Slot, factors: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The products of ``slot`` for each (weights, e) of ``factors``."""
    for weights, around in factors:
        for path, parts in groupby(slot, key=lambda part: part[0]):
            of_path = total(f"{value!r} * {around}{row}" for _, row, value in parts)
            yield f"{weights}{path} * ({of_path})"
