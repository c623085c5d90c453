"""The fused edge product on a GPU: launches its written Triton kernels on plain tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.kernels.fused.groups import centres
from equivbench.kernels.fused.native_product import results
from equivbench.kernels.fused.triton_function import (
    accumulate_in,
    block_of,
    run_programs,
    triton_function,
)
from equivbench.kernels.fused.triton_product_source import (
    INPUTS,
    OF_AROUND,
    ProductKernelKind,
    ProductRequest,
    reached,
    write_product,
)
from equivbench.kernels.operations import EdgeProduct

BLOCK = 32
"""Most channels of a program: one for each lane of its warp, which keeps a matrix in registers."""


def launch(
    operation: EdgeProduct,
    needs: Sequence[bool],
    grad: Tensor | None,
    tangents: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    edge_index: Tensor,
) -> tuple[Tensor, ...]:
    """The operator of :mod:`equivbench.kernels.fused.product_operator`.

    What is made of the edges of each centre, and shares of gradients, lie in memory between the
    kernels; nothing else does.
    """
    made = results(needs, *inputs)
    x, _, _, weights = inputs
    output, *gradients = made
    order, starts = centres(edge_index)
    nodes, degrees = len(starts) - 1, operation.lmax + 1
    features, blocks = x.shape[1], -(-operation.channels // BLOCK)
    along = frozenset(name for name, one in zip(INPUTS, tangents, strict=True) if one is not None)
    given = zip(INPUTS, inputs, tangents, strict=True)
    tensors = {"order": order, "starts": starts, "output": output}
    for name, one, tangent in given:
        tensors[name] = one.contiguous()
        if tangent is not None:
            tensors[f"tangent_{name}"] = tangent.contiguous()

    def run(kind: ProductKernelKind, wanted: frozenset[str] = frozenset()) -> None:
        block = block_of(operation.channels, BLOCK)
        request = ProductRequest(operation, kind, along, wanted, accumulate_in(x), block)
        of_kernel = [tensors[name] for name in request.pointers]
        run_programs(product_kernel(request), nodes * request.programs, of_kernel)

    for name in ("around", "tangent_around"):
        tensors[name] = x.new_empty(nodes, features)
        tensors[f"gradient_{name}"] = x.new_empty(nodes, degrees, features)
    run("around")
    if needs[0]:
        run("products")
    asked = {name for name, needed in zip(INPUTS, needs[1:], strict=True) if needed}
    wanted = frozenset(asked & reached(along))
    of_inputs = dict(zip(INPUTS, gradients, strict=True))
    for name in asked - wanted:
        of_inputs[name].zero_()
    if wanted:
        assert grad is not None
        tensors["cotangent"] = grad.contiguous()
        tensors |= {f"gradient_{name}": of_inputs[name] for name in wanted}
        # Every program writes a share of its own, so that their sum has one order.
        if "weights" in wanted:
            tensors["gradient_weights"] = x.new_empty(nodes, *weights.shape)
        if "harmonics" in wanted:
            tensors["gradient_harmonics"] = x.new_empty(len(x), blocks, degrees**2)
        run("gradients", wanted)
        if wanted & OF_AROUND:
            run("unravel", wanted)
        for name, place in (("weights", 0), ("harmonics", 1)):
            if name in wanted:
                torch.sum(tensors[f"gradient_{name}"], place, out=of_inputs[name])
    return made


@lru_cache(maxsize=256)
def product_kernel(request: ProductRequest) -> Any:
    """The Triton function for ``request``; raises ``FailedError`` where triton is absent."""
    return triton_function(request.operation.name, write_product(request))
