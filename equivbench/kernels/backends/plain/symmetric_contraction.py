"""MACE's symmetric contraction in plain torch: the monomials that occur, one matrix product with
the coefficients of all paths, and the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.operations import SymmetricContraction
from equivbench.kernels.operations.contraction_paths import Monomial, contraction_terms


def contraction_kernel(operation: SymmetricContraction, like: Tensor) -> Kernel:
    """Each monomial is one product more of a shorter one; what only longer ones begin with is among
    them too."""
    channels, rows = operation.channels, (operation.lmax + 1) ** 2
    terms = contraction_terms(operation.lmax, operation.target_lmax, operation.correlation)
    monomials: list[Monomial] = [(row,) for row in range(rows)]
    before, steps = monomials, []
    for length in range(2, operation.correlation + 1):
        found = sorted({one[:length] for _, one in terms if len(one) >= length})
        beginnings = torch.tensor([before.index(one[:-1]) for one in found])
        last = torch.tensor([one[-1] for one in found])
        steps.append((beginnings.to(like.device), last.to(like.device)))
        monomials, before = monomials + found, found
    place = {one: number for number, one in enumerate(monomials)}
    heights = [2 * path.target + 1 for path in operation.paths]
    first_rows = [sum(heights[:number]) for number in range(len(heights))]
    coefficients = torch.zeros(sum(heights), len(monomials), dtype=torch.float64)
    for (row, monomial), combination in terms.items():
        for path, value in combination:
            order = row - operation.paths[path].target ** 2
            coefficients[first_rows[path] + order, place[monomial]] = value
    coefficients = coefficients.to(like)
    path_of_row = torch.repeat_interleave(torch.tensor(heights)).to(like.device)
    targets = [path.target for path in operation.paths]
    counts = [targets.count(target) for target in range(operation.target_lmax + 1)]
    shapes = [(count, 2 * target + 1) for target, count in enumerate(counts)]

    def run(inputs: Tensors) -> Tensor:
        x = torch.unflatten(inputs["x"], 1, (rows, channels))
        product, products = x, [x]
        for beginnings, last in steps:
            product = product.index_select(1, beginnings) * x.index_select(1, last)
            products.append(product)
        coupled = coefficients @ torch.cat(products, dim=1)
        weights = torch.unflatten(inputs["weights"], 1, (len(heights), channels))
        of_nodes = weights.index_select(0, inputs["elements"])
        weighted = coupled * of_nodes.index_select(1, path_of_row)
        sums = [
            torch.unflatten(part, 1, shape).sum(1)
            for part, shape in zip(
                torch.split(weighted, [count * height for count, height in shapes], dim=1),
                shapes,
                strict=True,
            )
        ]
        return torch.cat(sums, dim=1).flatten(1)

    return Kernel(run, "torch matmul")
