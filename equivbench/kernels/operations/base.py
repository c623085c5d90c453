"""What every operation states about itself, and the named cases of one. Imports no torch.

An operation is one file beside this one: a frozen dataclass of plain numbers whose docstring states
the formula, the inputs and their shapes, and whose methods draw random inputs, evaluate the formula
in float64 and count bytes and operations; below it ``CASES``, the sizes that people run. Backends
are held against it and nothing else needs to know of it but the list in ``__init__.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from equivbench.errors import UsageError
from equivbench.specs import MODES, Mode

if TYPE_CHECKING:
    from torch import Generator, Tensor

INDEX_BYTES = 8
"""int64 indices."""
Sizes = Mapping[str, int]
"""What an operation leaves open, such as ``nodes`` and ``edges``."""


class Costs(NamedTuple):
    """What one call of a mode costs at least."""

    bytes_read: float
    """Each pass of autograd reads its arguments once, and recomputes what lies between."""
    bytes_written: float
    """Each pass writes its results once."""
    bytes_unfused: float
    """Read and written, one operation after the other, each through memory."""
    operations: float
    """Useful floating-point operations: coefficients that are zero, and what is recomputed, do not
    count."""

    @property
    def bytes_fused(self) -> float:
        """All that any implementation must move."""
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True)
class Drawn:
    """An input: its shape, and how its numbers are drawn, scaled and shifted."""

    shape: tuple[int, ...]
    draw: str = "normal"
    """A function of :mod:`equivbench.kernels.operations.drawing`."""
    scale: float = 1.0
    first: float = 0.0

    @property
    def index(self) -> bool:
        """Whether it holds int64 indices."""
        return self.draw in ("neighbour_pairs", "molecules", "elements")


@dataclass(frozen=True)
class Operation:
    """The base of all operations; a subclass is a frozen dataclass of plain numbers.

    Irreps lie in blocks by degree l, and in a block channels are innermost: [..., 2 l + 1, C],
    flattened. Components are in e3nn's order (for l = 1: x, y, z) and the spherical harmonics are
    e3nn's with ``normalization="component"``. This is the layout of the stated tensors; a backend
    that wants another says how to change them (:class:`equivbench.kernels.backend.Kernel`).
    """

    name: ClassVar[str]
    """What it is called in ``equivbench kernels`` and by :meth:`Backend.build`."""
    differentiable: ClassVar[tuple[str, ...]] = ()
    """The inputs that gradients are taken by."""

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """The inputs by name, of order one."""
        raise self._lacks("inputs", "arguments")

    def draw(self, sizes: Sizes, generator: Generator) -> dict[str, Tensor]:
        """Random inputs in float64 on the CPU, one after the other."""
        from equivbench.kernels.operations import drawing

        made = {}
        for name, one in self.arguments(sizes).items():
            draw = getattr(drawing, one.draw)
            if one.index:
                made[name] = draw(generator, sizes)
            else:
                made[name] = one.first + draw(generator, *one.shape) * one.scale
        return made

    def reference(self, *_: Any, **inputs: Any) -> Tensor:
        """The formula on the named inputs in float64: plain dense torch, independent of all
        backends.

        It is differentiable as often as the cases say.
        """
        raise self._lacks("reference", "reference")

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """Numbers of the output, numbers that one operation stores and the next reads where none
        are fused, and useful operations, of one call forward."""
        raise self._lacks("cost formulas", "work")

    def passes(self, sizes: Sizes, itemsize: int) -> tuple[Costs, ...]:
        """Costs of the forward, backward and double-backward pass, each alone, with numbers of
        ``itemsize`` bytes: those of what is linear in each of two factors."""
        output, between, operations = self.work(sizes)
        numbers = fixed = 0
        for name, one in self.arguments(sizes).items():
            count = math.prod(one.shape)
            if name in self.differentiable:
                numbers += count
            else:
                fixed += count * (INDEX_BYTES if one.index else itemsize)
        return bilinear_passes(itemsize, numbers, output, between, operations, fixed)

    def _lacks(self, what: str, method: str) -> UsageError:
        return UsageError(
            f"kernel operation {self.name!r} has no {what}; give {type(self).__name__} a method"
            f" {method!r}"
        )


@dataclass(frozen=True)
class Case:
    """An operation at a size that people run."""

    name: str
    operation: Operation
    sizes: Sizes
    derivatives: int
    """How often networks differentiate it: 2 where forces come from an energy."""
    source: str
    """Which network, and where its sizes are published."""
    quick: bool = False
    """Whether it is checked and timed in about a second: what the gate, asv and pytest-benchmark
    take by default."""


def costs(case: Case, mode: Mode, itemsize: int = 4) -> Costs:
    """The costs of one call of ``case`` in ``mode``, which is cumulative.

    Parameters
    ----------
    case
        Operation and sizes.
    mode
        ``double_backward`` holds the forward and the backward pass too.
    itemsize
        Bytes of a number.

    Returns
    -------
    Costs
        The floor that measured times are held against.

    Raises
    ------
    UsageError
        The operation has no formulas.
    """
    passes = case.operation.passes(case.sizes, itemsize)[: MODES.index(mode) + 1]
    return Costs(*map(sum, zip(*passes, strict=True)))


def bilinear_passes(
    itemsize: int, arguments: int, output: int, between: int, operations: float, fixed: int = 0
) -> tuple[Costs, ...]:
    """The three passes of what is linear in each of two factors: one product forward, two backward,
    four for second derivatives.

    A backward pass reads the arguments and the output's gradient and writes a gradient for each
    argument; the next one reads gradients of these gradients too, and writes those of the arguments
    and of the output's gradient. ``arguments``, ``output`` and what lies ``between`` (stored by one
    operation and read by the next) are in numbers; ``fixed``, which every pass reads and nothing is
    differentiated by, such as indices, is in bytes. Pointwise functions are counted by the same
    rule.
    """
    return tuple(
        Costs(
            itemsize * read + fixed,
            itemsize * written,
            itemsize * (read + written + 2 * products * between) + fixed,
            products * operations,
        )
        for read, written, products in (
            (arguments, output, 1),
            (arguments + output, arguments, 2),
            (2 * arguments + output, arguments + output, 4),
        )
    )
