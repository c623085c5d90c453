"""Float64 references of every operation: plain dense torch, independent of all backends, differentiable any number of times."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

from torch import Tensor

from equivbench.errors import UsageError
from equivbench.kernels.operations import Convolution, Operation
from equivbench.kernels.references.convolution import convolution

Reference = Callable[..., Tensor]


@singledispatch
def reference(operation: Operation) -> Reference:
    """A function of the operation's named inputs, for float64; ``reference.register`` adds an operation."""
    raise UsageError(
        f"kernel operation {operation.name!r} has no reference; register a function with equivbench.kernels.reference.reference"
    )


@reference.register
def _convolution(operation: Convolution) -> Reference:
    return convolution(operation)
