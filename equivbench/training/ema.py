"""Exponential moving average of the weights, decay min(d, (1 + n) / (10 + n)), swapped in without
copying."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + n) / (10 + n)) after update ``n`` = ``step``, counted from 0: a short run
    forgets its initial weights."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """The averaged weights of a model's parameters; buffers are taken as they are.

    ``average`` has the parameters' names, shapes and dtypes.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = [parameter for _, parameter in model.named_parameters()]
        self.average = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }
        self._averages = list(self.average.values())

    def update(self, step: int) -> None:
        """average <- d average + (1 - d) weights, with d = ``decay_at(step)``; ``step`` counts from
        0."""
        if self._averages:
            weights = [parameter.data for parameter in self._parameters]
            torch._foreach_lerp_(self._averages, weights, 1.0 - decay_at(step, self.decay))

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model holds the averaged weights inside the block. Storage is exchanged, nothing is
        copied."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for parameter, average in zip(self._parameters, self._averages, strict=True):
            weights: Tensor = parameter.data
            parameter.data = average.data
            average.data = weights
