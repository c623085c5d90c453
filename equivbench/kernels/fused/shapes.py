"""What the tensors of a convolution must be, so that no kernel reads past the end of one."""

from __future__ import annotations

from torch import Tensor

from equivbench.kernels.operations import Convolution


def check_shapes(
    operation: Convolution, x: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor
) -> None:
    """Raise ``ValueError`` that names the tensor whose shape is not that of :class:`Convolution`'s
    docstring."""
    edges = edge_index.shape[-1]
    stated = {
        "x": (x, [x.shape[0], operation.source_size]),
        "harmonics": (harmonics, [edges, (operation.edge_lmax + 1) ** 2]),
        "weights": (weights, [edges, operation.weight_size]),
        "edge_index": (edge_index, [2, edges]),
    }
    for name, (tensor, shape) in stated.items():
        if list(tensor.shape) != shape:
            raise ValueError(
                f"{name} of the convolution is {list(tensor.shape)}; it must be {shape}"
            )
