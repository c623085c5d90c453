"""The Hessian of a scalar by chosen parameters, never formed: its extreme eigenvectors by Lanczos,
its trace by random probes."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from equivbench.errors import FailedError, UsageError

Array: TypeAlias = NDArray[np.float64]

DENSE = 64
"""Up to this many parameters the whole matrix is built: Lanczos needs more dimensions than the
vectors it keeps."""
TOLERANCE = 3e-3
"""Of |H v - lambda v| over about half the largest |lambda|. The eigenvalue itself is wrong by its
square over the gap."""
_KEPT = 20
"""Lanczos vectors: about as many products find one eigenvalue at either end of most networks'
spectra."""
_RESTARTS = 20
_POWER_STEPS = 4


@dataclass(frozen=True)
class Varied:
    """Some parameters of a model as one vector of float64; what is written there is what the model
    computes with."""

    tensors: tuple[nn.Parameter, ...]

    @property
    def size(self) -> int:
        """How many numbers they hold."""
        return sum(tensor.numel() for tensor in self.tensors)

    def read(self) -> Array:
        """[size]: a copy of their values."""
        return _flat(self.tensors)

    def write(self, vector: Array) -> None:
        """Set them to ``vector`` [size]."""
        with torch.no_grad():
            for tensor, piece in zip(self.tensors, _pieces(vector, self.tensors), strict=True):
                tensor.copy_(piece)


def choose(model: nn.Module, pattern: str = "*") -> Varied:
    """The trained parameters of ``model`` whose names ``pattern`` (``*`` and ``?`` as in a shell)
    matches.

    Raises ``UsageError`` with the close matches where there are none.
    """
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    chosen = {
        name: tensor for name, tensor in trained.items() if fnmatch.fnmatchcase(name, pattern)
    }
    if not chosen:
        close = difflib.get_close_matches(pattern.strip("*?"), trained, n=3, cutoff=0.3)
        names = " or ".join(close or list(trained)[:3])
        hint = f"did you mean {names}?" if names else "the model has none that are trained"
        raise UsageError(f"no parameter's name matches {pattern!r}; {hint}")
    return Varied(tuple(chosen.values()))


class Hessian:
    """The second derivatives of ``value`` (a scalar with its graph) by ``varied``, as products with
    vectors.

    The graph of the gradient is kept, so that a product costs one backward pass through it (double
    backward; Pearlmutter, Neural Computation 1994), and as much memory as it takes.
    """

    def __init__(self, value: Tensor, varied: Varied) -> None:
        self.size = varied.size
        self.products = 0
        """How many were taken so far."""
        self._varied = varied.tensors
        gradient = torch.autograd.grad(
            value, self._varied, create_graph=True, allow_unused=True, materialize_grads=True
        )
        self.gradient: Array = _flat(gradient)
        """[size] the first derivatives."""
        # A parameter on which the value depends linearly, or not at all, has a gradient without a
        # graph.
        self._curved = [(index, each) for index, each in enumerate(gradient) if each.requires_grad]

    def product(self, vector: Array) -> Array:
        """H ``vector`` [size]."""
        self.products += 1
        if not self._curved:
            return np.zeros(self.size)
        pieces = _pieces(vector, self._varied)
        rows = torch.autograd.grad(
            [each for _, each in self._curved],
            self._varied,
            grad_outputs=[pieces[index] for index, _ in self._curved],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return _flat(rows)


@dataclass(frozen=True)
class Spectrum:
    """The outer eigenpairs of a symmetric matrix."""

    largest: Array
    """[k] the largest first."""
    smallest: Array
    """[k] the smallest first."""
    vectors: Array
    """[2 k, n] orthonormal, in the order of ``largest``, then ``smallest``."""
    residual: float
    """Largest |H v - lambda v| / |lambda_max|, with lambda = v^T H v of the vector as it was
    found."""


def outer_spectrum(
    hessian: Hessian, count: int, *, seed: int, tolerance: float = TOLERANCE
) -> Spectrum:
    """The ``count`` largest and smallest eigenvalues of ``hessian`` with their vectors, by
    implicitly restarted Lanczos (ARPACK).

    The start vector follows from ``seed``. Raises ``UsageError`` for more eigenvalues than there
    are, ``FailedError`` where they do not converge or the Hessian is not finite.
    """
    if not 1 <= count <= hessian.size // 2:
        raise UsageError(
            f"{hessian.size} parameters have no {count} largest and {count} smallest eigenvalues; "
            f"ask for fewer"
        )
    vectors = (
        _dense(hessian, count)
        if hessian.size <= DENSE
        else _lanczos(hessian, count, seed, tolerance)
    )
    images = np.stack([hessian.product(vector) for vector in vectors])
    values = np.einsum("in,in->i", vectors, images)
    order = np.argsort(values)
    chosen = [*order[::-1][:count], *order[:count]]
    scale = np.abs(values).max()
    error = np.linalg.norm(images - values[:, None] * vectors, axis=1).max()
    residual = error / scale if scale > 0 else 0.0
    return Spectrum(
        values[chosen[:count]], values[chosen[count:]], vectors[chosen], float(residual)
    )


def probed_trace(
    hessian: Hessian, spectrum: Spectrum, probes: int, *, seed: int
) -> tuple[float, float]:
    """(the trace, its standard error) by Hutchinson's estimator with ``probes`` vectors of random
    signs.

    The eigenvectors of ``spectrum`` are taken out of the probes and their part of the trace added
    exactly: what they would give the variance is most of it (the idea of Hutch++, Meyer et al.
    2021). Unbiased, whether or not they have converged.
    """
    basis = spectrum.vectors.T
    known = float(spectrum.largest.sum() + spectrum.smallest.sum())
    signs = np.random.default_rng(seed).integers(0, 2, size=(probes, hessian.size)) * 2.0 - 1.0
    rest = signs - (signs @ basis) @ basis.T
    drawn = np.array([probe @ hessian.product(probe) for probe in rest])
    return known + float(drawn.mean()), float(drawn.std(ddof=1) / np.sqrt(probes))


def _lanczos(hessian: Hessian, count: int, seed: int, tolerance: float) -> Array:
    start = np.random.default_rng(seed).standard_normal(hessian.size)
    # ARPACK judges each eigenpair by its own eigenvalue: an end of the spectrum near 0 would take
    # hundreds of products. Shifted by half its reach, for which a few steps of power iteration do,
    # the spectrum has both ends far from 0.
    shift = _reach(hessian, start) / 2
    operator = LinearOperator(
        (hessian.size, hessian.size),
        matvec=lambda vector: hessian.product(vector) - shift * np.ravel(vector),
        dtype=np.float64,
    )
    kept = min(hessian.size, max(_KEPT, 5 * count))
    try:
        _, columns = eigsh(
            operator, k=2 * count, which="BE", v0=start, ncv=kept, maxiter=_RESTARTS, tol=tolerance
        )
    except ArpackNoConvergence as error:
        raise FailedError(
            f"the {count} largest and smallest eigenvalues did not converge in {hessian.products} "
            f"Hessian-vector products; "
            "ask for fewer, or vary fewer layers"
        ) from error
    except ArpackError as error:
        raise FailedError(
            f"the eigenvalues could not be computed ({error}); are the weights and the error "
            f"finite?"
        ) from error
    return np.ascontiguousarray(columns.T)


def _reach(hessian: Hessian, vector: Array) -> float:
    """About the largest |eigenvalue|, from below."""
    length = 0.0
    for _ in range(_POWER_STEPS):
        image = hessian.product(vector)
        length = float(np.linalg.norm(image) / np.linalg.norm(vector))
        if not np.isfinite(length):
            raise FailedError("the Hessian is not finite; are the weights and the error?")
        if length == 0:
            break
        vector = image
    return length


def _dense(hessian: Hessian, count: int) -> Array:
    matrix = np.stack([hessian.product(unit) for unit in np.eye(hessian.size)])
    if not np.isfinite(matrix).all():
        raise FailedError("the Hessian is not finite; are the weights and the error?")
    _, columns = np.linalg.eigh((matrix + matrix.T) / 2)
    outer = [*range(count), *range(hessian.size - count, hessian.size)]
    return np.ascontiguousarray(columns[:, outer].T)


def _flat(tensors: Sequence[Tensor]) -> Array:
    joined = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])
    return np.array(joined.cpu().numpy(), dtype=np.float64)


def _pieces(vector: Array, like: Sequence[Tensor]) -> list[Tensor]:
    """``vector`` cut into tensors of the shapes, types and places of ``like``."""
    whole = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64).reshape(-1))
    parts = torch.split(whole, [tensor.numel() for tensor in like])
    return [part.reshape(each.shape).to(each) for part, each in zip(parts, like, strict=True)]
