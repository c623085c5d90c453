"""Whether results agree with their float64 reference: relative errors of whole tensors and of
single rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from equivbench.errors import FailedError, UsageError
from equivbench.kernels.problem import Results


class WrongKernelError(FailedError):
    """A backend's results disagree with the reference, so it is not timed; the message says which
    one and by how much."""


class Tolerance(NamedTuple):
    """Largest relative error that rounding explains."""

    output: float
    derivatives: float


# Sums of some tens of neighbours and some thousands of edges, in any order: measured errors are a
# few rounding units for outputs and up to a hundred for derivatives. A dropped edge changes its
# centre's row by about a fifth.
TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: Tolerance(1e-12, 1e-11),
    torch.float32: Tolerance(1e-5, 1e-4),
    torch.float16: Tolerance(1e-2, 3e-2),
    torch.bfloat16: Tolerance(5e-2, 1e-1),
}


def tolerance(dtype: torch.dtype) -> Tolerance:
    """What is allowed for inputs of ``dtype``; raises ``UsageError`` for a dtype that has no
    rule."""
    if dtype not in TOLERANCES:
        raise UsageError(
            f"kernels are not checked in {dtype};"
            f" choose one of {', '.join(str(one) for one in TOLERANCES)}"
        )
    return TOLERANCES[dtype]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The larger of two relative errors, infinite where ``found`` is not finite; 0 to rounding for
    a right result.

    Of the whole: the norm of the difference over the norm of ``expected``. Of the worst row (all
    but the last axis): the same, where a row smaller than the root mean square of the rows counts
    as that large. One wrong row of many hides in the first and not in the second. Integers and
    booleans: the share of entries that differ. Where ``expected`` is zero throughout: the root mean
    square of ``found``, as inputs are of order one.
    """
    if not expected.numel():
        return 0.0
    if not expected.is_floating_point():
        return float((found != expected).double().mean())
    wanted = expected.reshape(-1, expected.shape[-1] if expected.ndim else 1).double()
    difference = found.reshape(wanted.shape).double() - wanted
    sizes, errors = wanted.norm(dim=1), difference.norm(dim=1)
    typical = float(sizes.square().mean().sqrt())
    if typical == 0.0:
        worst = float(difference.square().mean().sqrt())
    else:
        whole = float(errors.square().mean().sqrt()) / typical
        worst = max(whole, float((errors / sizes.clamp_min(typical)).max()))
    return worst if math.isfinite(worst) else math.inf


def check(found: Results, expected: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, float]:
    """The relative error of every result; raises ``WrongKernelError`` that names the first that is
    wrong.

    ``expected`` are float64 (or integer) references; ``dtype`` is what floating-point results must
    have.
    """
    allowed = tolerance(dtype)
    errors: dict[str, float] = {}
    # The last result is the one that asynchronous work would finish last.
    for name in reversed(list(expected)):
        errors[name] = error = _error(name, found.get(name), expected[name], dtype)
        most = allowed.output if name == "output" else allowed.derivatives
        if not error <= most:
            off = "not finite" if math.isinf(error) else f"off by {error:.2g} of its size"
            raise WrongKernelError(f"{name} is {off} (allowed: {most:.0e})")
    return {name: errors[name] for name in expected}


def _error(name: str, result: Tensor | None, expected: Tensor, dtype: torch.dtype) -> float:
    if result is None:
        if expected.count_nonzero():
            raise WrongKernelError(f"{name} is missing: autograd finds no way to it")
        return 0.0
    result = plain(name, result)
    wanted = dtype if expected.is_floating_point() else expected.dtype
    kind, right = (
        f"{list(one.shape)} {kept} on {one.device.type}"
        for one, kept in ((result, result.dtype), (expected, wanted))
    )
    if kind != right:
        raise WrongKernelError(f"{name} is {kind}, not {right}")
    return relative_error(result, expected)


def plain(name: str, result: Tensor) -> Tensor:
    """``result`` without its history; raises ``WrongKernelError`` where it is not exactly a dense
    tensor, with the methods of one, and so may do its work when it is looked at."""
    if type(result) is not Tensor or result.layout != torch.strided:
        kind = f"a {type(result).__name__} ({getattr(result, 'layout', 'no tensor')})"
        raise WrongKernelError(f"{name} is {kind}, which may do its work later, not a plain tensor")
    own = [attribute for attribute in vars(result) if hasattr(Tensor, attribute)]
    if own:
        raise WrongKernelError(
            f"{name} is a tensor with a {own[0]!r} of its own, which may do its work later"
        )
    return Tensor.detach(result)


def poison(results: Results) -> None:
    """Overwrite ``results`` in place, so that memory handed out again holds nothing that passes for
    a result."""
    for result in results.values():
        if result is None or not result.numel():
            continue
        whole = Tensor.detach(result)
        # Expanded results hold a number once; a strided view of the distinct ones can be written.
        sizes = [
            1 if stride == 0 else size
            for size, stride in zip(whole.shape, whole.stride(), strict=True)
        ]
        distinct = whole.as_strided(sizes, whole.stride())
        if whole.is_floating_point():
            distinct.fill_(math.nan)
        else:
            distinct.fill_(torch.iinfo(whole.dtype).min if whole.dtype != torch.bool else True)
