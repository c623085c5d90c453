"""What every compiled operator keeps to, whatever it computes, and inputs of other kinds to hold it
to the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
from derivatives import Inputs, assert_close, derivatives

from equivbench.kernels.backend import Kernel


@contextmanager
def two_threads(monkeypatch: pytest.MonkeyPatch, module: ModuleType, least: str) -> Iterator[None]:
    """Two threads take part even in the small work of a test: ``least`` in ``module`` is what a
    thread is given at least."""
    monkeypatch.setattr(module, least, 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def needing(inputs: Inputs, by: Collection[str]) -> Inputs:
    """The same numbers, of which those called ``by`` require gradients."""
    return {name: one.detach().requires_grad_(name in by) for name, one in inputs.items()}


def strided(inputs: Inputs, dim: int = -1) -> Inputs:
    """The same numbers, with a gap after each along ``dim``."""
    return {
        name: one.detach()
        .repeat_interleave(2, dim)
        .movedim(dim, -1)[..., ::2]
        .movedim(-1, dim)
        .requires_grad_(one.requires_grad)
        for name, one in inputs.items()
    }


def in_double(inputs: Inputs) -> Inputs:
    """The same numbers in float64, those that require gradients."""
    return {
        name: one.detach().double().requires_grad_() if one.requires_grad else one
        for name, one in inputs.items()
    }


def assert_same_bits(kernel: Kernel, inputs: Inputs, tolerance: float) -> None:
    """Two calls agree to the bit, and with one on one thread to ``tolerance``."""
    once, again = (derivatives(kernel, inputs) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))
    torch.set_num_threads(1)
    assert_close(derivatives(kernel, inputs), once, tolerance)


def assert_leaves_inputs(kernel: Kernel, inputs: Inputs) -> None:
    """No input is another after a call and its derivatives."""
    before = {name: one.detach().clone() for name, one in inputs.items()}
    derivatives(kernel, inputs)
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)


def assert_no_third_derivative(kernel: Kernel, inputs: Inputs) -> None:
    """A third derivative is an error, not zero."""
    output = kernel(**inputs).square().sum()
    (first,) = torch.autograd.grad(output, inputs["x"], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), inputs["weights"], create_graph=True)
    with pytest.raises(NotImplementedError, match="first and second derivatives only"):
        torch.autograd.backward(second.square().sum())


def assert_nodes_are_checked(kernel: Kernel, inputs: Inputs) -> None:
    """Edges from or to a node that is not there are an error, not a crash."""
    for wrong in (-1, len(inputs["x"]), 2**40):
        for row in (0, 1):
            edge_index = inputs["edge_index"].clone()
            edge_index[row, 3] = wrong
            with pytest.raises(IndexError, match=f"not among the {len(inputs['x'])}"):
                kernel(**{**inputs, "edge_index": edge_index})
