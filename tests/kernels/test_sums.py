"""Sums over edges and atoms: their rounding is that of the terms and of one result."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from seen_sums import SeenSums

from equivbench.kernels.backend import backend
from equivbench.kernels.operations import CASES
from equivbench.kernels.problem import make_inputs
from equivbench.kernels.sums import sum_by, widened

CPU = torch.device("cpu")
TERMS = 2048
"""Far more than 256, from which on a sum in bfloat16 takes in no further equal term."""
ADDED_IN_FLOAT32 = TERMS * 2.0**-24
"""Relative to the sum of the terms' magnitudes: a rounding at every addition."""
SUMMING = (
    *(("torch", name) for name in ("convolution", "painn-message", "edge-product")),
    *(("torch", name) for name in ("so2-convolution", "so2-message")),
    *(("e3nn", name) for name in ("convolution", "edge-product")),
)
"""Backends with an operation that adds up messages in torch's own functions."""


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_a_sum_is_rounded_to_its_dtype_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2 * TERMS, 3, generator=generator).to(dtype)
    index = torch.arange(2 * TERMS) % 2
    exact = torch.stack([values[index == row].double().sum(0) for row in (0, 1)])
    found, wide = sum_by(index, values, 2), sum_by(index, widened(values), 2)
    assert (found.dtype, wide.dtype) == (dtype, torch.promote_types(dtype, torch.float32))
    assert ((wide.double() - exact).abs() <= ADDED_IN_FLOAT32 * exact).all()
    once = torch.finfo(dtype).eps / 2 + ADDED_IN_FLOAT32
    assert ((found.double() - exact).abs() <= once * exact).all()


@pytest.mark.parametrize(("library", "name"), SUMMING)
def test_messages_in_bfloat16_are_added_up_in_float32(library: str, name: str) -> None:
    """On a CPU torch may do so itself where rows are wide, on a GPU it does not."""
    case = next(one for one in CASES if one.operation.name == name)
    few = replace(case, sizes={**case.sizes, "nodes": 6, "edges": 20})
    inputs = make_inputs(few, dtype=torch.bfloat16, device=CPU)
    kernel = backend(library).build(case.operation, dtype=torch.bfloat16, device=CPU)
    with SeenSums() as seen:
        output = kernel(**inputs)
    assert (seen.dtypes, output.dtype) == ({torch.float32}, torch.bfloat16)
