"""PaiNN's message in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.operations import PaiNNMessage
from equivbench.kernels.sums import sum_by


def message_kernel(operation: PaiNNMessage, like: Tensor) -> Kernel:
    """Twice differentiable, and traced whole by torch.compile."""
    channels, with_vectors = operation.channels, operation.vectors

    def run(inputs: Tensors) -> Tensor:
        gates, filters = inputs["x"], inputs["weights"]
        source, centre = inputs["edge_index"][0], inputs["edge_index"][1]
        # Split rather than sliced: the backward of a slice fills a tensor with zeros.
        if with_vectors:
            gates, vectors = torch.split(gates, [2 * channels, 3 * channels], dim=1)
            filters, scales = torch.split(filters, [2 * channels, channels], dim=1)
        scalars, along = torch.split(gates.index_select(0, source) * filters, channels, dim=1)
        messages = along.unsqueeze(1) * inputs["directions"].unsqueeze(2)
        if with_vectors:
            passed = torch.unflatten(vectors.index_select(0, source), 1, (3, channels))
            messages = messages + scales.unsqueeze(1) * passed
        sums = [sum_by(centre, one, gates.shape[0]) for one in (scalars, messages.flatten(1))]
        return torch.cat(sums, dim=1)

    return Kernel(run, method="torch")
