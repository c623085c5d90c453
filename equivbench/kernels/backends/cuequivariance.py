"""The ``cuequivariance`` backend: NVIDIA's segmented polynomials, their CUDA kernels on a GPU and
``naive`` on a CPU.

The library falls back to ``naive`` with a warning and nothing more; here that is an error on a GPU,
and on a CPU, where it has nothing else, ``method`` says it. Written for version 0.13.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.kernels.backend import Kernel, TableBackend, Tensors
from equivbench.kernels.backends.plain.irreps import unit_vectors
from equivbench.kernels.operations import Convolution, SphericalHarmonics, SymmetricContraction
from equivbench.kernels.operations.contraction_paths import contraction_terms
from equivbench.kernels.operations.paths import coupling

CUDA_METHOD = "uniform_1d"
"""The CUDA kernel for polynomials whose segments are all of one size, which all of the operations
can be brought to."""


def convolution_polynomial(operation: Convolution) -> Any:
    """The paths as a polynomial of weights, x and harmonics, in the stated order of each."""
    cue = importlib.import_module("cuequivariance")
    product = cue.SegmentedTensorProduct.from_subscripts("u,iu,j,ku+ijk")
    for degree, channels in enumerate(operation.channels):
        product.add_segment(1, (2 * degree + 1, channels))
    for degree in range(operation.edge_lmax + 1):
        product.add_segment(2, (2 * degree + 1,))
    for path in operation.paths:
        channels, height = operation.channels[path.source], 2 * path.target + 1
        # e3nn's coefficients, so that nothing hangs on which basis the library prefers.
        coefficients = coupling(path)
        weights, target = (
            product.add_segment(0, (channels,)),
            product.add_segment(3, (height, channels)),
        )
        product.add_path(
            weights, path.source, path.edge, target, c=coefficients.permute(1, 2, 0).numpy()
        )
    return cue.SegmentedPolynomial.eval_last_operand(product)


def uniform(polynomial: Any, channels: Sequence[int]) -> Any:
    """The same polynomial of the same tensors with all segments of one size, as ``uniform_1d``
    needs them.

    Components become segments of their own before channels are split, so that nothing changes its
    place.
    """
    apart = polynomial.flatten_coefficient_modes()
    return apart if len(set(channels)) == 1 else apart.split_mode("u", math.gcd(*channels))


def convolution(operation: Convolution, like: Tensor) -> Kernel:
    """In the library's layout ``ir_mul``, which is the stated one; the gather and the scatter are
    indices of the polynomial's operands."""
    polynomial = convolution_polynomial(operation)
    if like.device.type == "cuda":
        polynomial = uniform(polynomial, operation.channels)
    evaluate, method = _evaluator(polynomial, like)

    def run(inputs: Tensors) -> Tensor:
        x, edge_index = inputs["x"], inputs["edge_index"]
        output: Tensor = evaluate(
            [inputs["weights"], x, inputs["harmonics"]],
            input_indices={1: edge_index[0]},
            # Only the number of rows is read.
            output_shapes={0: x[:, :1]},
            output_indices={0: edge_index[1]},
        )[0]
        return output

    return Kernel(run, method, compiles=like.device.type == "cuda")


def harmonics(operation: SphericalHarmonics, like: Tensor) -> Kernel:
    """The library's own polynomial."""
    cue = importlib.import_module("cuequivariance")
    degrees = list(range(operation.lmax + 1))
    polynomial = cue.descriptors.spherical_harmonics(cue.SO3(1), degrees).polynomial
    evaluate, method = _evaluator(polynomial, like)

    def run(inputs: Tensors) -> Tensor:
        output: Tensor = evaluate([unit_vectors(inputs["vectors"])])[0]
        return output

    return Kernel(run, method, compiles=like.device.type == "cuda")


def contraction_polynomial(operation: SymmetricContraction) -> Any:
    """The paths as a polynomial of weights and x, one of its products for each number of factors;
    its segments are all of one size."""
    cue = importlib.import_module("cuequivariance")
    terms = contraction_terms(operation.lmax, operation.target_lmax, operation.correlation)
    weights, x, target = (
        cue.SegmentedOperand(ndim=1, segments=[(operation.channels,)] * count)
        for count in (
            len(operation.paths),
            (operation.lmax + 1) ** 2,
            (operation.target_lmax + 1) ** 2,
        )
    )
    products = []
    for number in range(1, operation.correlation + 1):
        product = cue.SegmentedTensorProduct.from_subscripts(",".join("u" * (number + 2)))
        operands = [weights, *[x] * number, target]
        for place, operand in enumerate(operands):
            for segment in operand.segments:
                product.add_segment(place, segment)
        for (row, monomial), combination in terms.items():
            if len(monomial) == number:
                for path, value in combination:
                    product.add_path(path, *monomial, row, c=value)
        products.append((cue.Operation([0, *[1] * number, 2]), product))
    return cue.SegmentedPolynomial([weights, x], [target], products)


def contraction(operation: SymmetricContraction, like: Tensor) -> Kernel:
    """As ``cuequivariance_torch.SymmetricContraction`` runs it, in the library's layout ``ir_mul``,
    with weights of the stated paths in place of those that it chooses itself."""
    evaluate, method = _evaluator(contraction_polynomial(operation), like)

    def run(inputs: Tensors) -> Tensor:
        given = [inputs["weights"], inputs["x"]]
        output: Tensor = evaluate(given, input_indices={0: inputs["elements"]})[0]
        return output

    return Kernel(run, method, compiles=like.device.type == "cuda")


def _evaluator(polynomial: Any, like: Tensor) -> tuple[Any, str]:
    """The library's module for ``polynomial`` and the method that really runs."""
    wanted = CUDA_METHOD if like.device.type == "cuda" else "naive"
    library = importlib.import_module("cuequivariance_torch")
    # The CUDA kernel computes in these two only; narrower inputs are widened.
    math_dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        module = library.SegmentedPolynomial(polynomial, method=wanted, math_dtype=math_dtype)
    for one in said:
        if wanted == CUDA_METHOD and _of_a_fallback(one):
            raise FailedError(f"cuequivariance would not run {wanted}: {one.message}")
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if module.method != wanted:
        raise FailedError(
            f"cuequivariance runs {module.method} in place of {wanted}; pip install '{_extra()}'"
        )
    return module.to(like.device), f"cuequivariance {version('cuequivariance-torch')} {wanted}"


def _extra() -> str:
    """What brings the CUDA kernels for the CUDA that torch was built with."""
    return f"equivbench[cue-cu{(torch.version.cuda or '13').partition('.')[0]}]"


def _of_a_fallback(said: warnings.WarningMessage) -> bool:
    """Whether it is the library's own word, and not torch's on something that it uses."""
    return "cuequivariance" in said.filename or bool(re.search("naive|fall", str(said.message)))


class CuEquivariance(TableBackend):
    """Convolutions, spherical harmonics and symmetric contractions."""

    name = "cuequivariance"
    kernels = (
        (Convolution, convolution),
        (SphericalHarmonics, harmonics),
        (SymmetricContraction, contraction),
    )

    def missing(self, device: torch.device) -> str | None:
        """On a GPU also the package of its kernels, which has a name of its own."""
        if (reason := super().missing(device)) is not None:
            return reason
        if device.type == "cuda" and importlib.util.find_spec("cuequivariance_ops_torch") is None:
            return f"cuEquivariance's CUDA kernels are not installed: pip install '{_extra()}'"
        return None
