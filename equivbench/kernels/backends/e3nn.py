"""The ``e3nn`` and ``e3nn-compiled`` backends: e3nn's operations as its users run them, eager or through torch.compile."""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from importlib.metadata import version

import torch
from e3nn import get_optimization_defaults, o3
from torch import Tensor

from equivbench.environment import cxx_compiler
from equivbench.kernels.backend import Kernel, Tensors, UnsupportedError
from equivbench.kernels.backends.layout import channels_innermost, channels_outermost, degree_blocks
from equivbench.kernels.operations import Convolution, Operation


class E3nn:
    """Eager, in the mode that e3nn itself chooses for this torch (``script`` or ``eager``), which ``method`` says."""

    def missing(self, device: torch.device) -> str | None:
        """Never missing: the package needs e3nn."""
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """``operation`` by e3nn; raises ``UnsupportedError`` for what it does not have."""
        return _build(operation, dtype=dtype, device=device)


class E3nnCompiled:
    """The same functions through ``torch.compile(fullgraph=True, dynamic=True)``, which has no second derivatives."""

    def missing(self, device: torch.device) -> str | None:
        """A compiler is needed on a CPU."""
        if device.type == "cpu" and cxx_compiler() is None:
            return "torch.compile needs a C++ compiler on a CPU: install g++ or clang, or set CXX"
        return None

    def build(self, operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
        """``operation`` by e3nn, compiled in the first calls; raises ``UnsupportedError`` for what e3nn does not have."""
        eager = _build(operation, dtype=dtype, device=device)
        compiled = torch.compile(eager.run, fullgraph=True, dynamic=True)
        # AOTAutograd refuses a backward of the backward.
        return replace(eager, run=compiled, method=f"e3nn {version('e3nn')} inductor", compiles=True, max_derivatives=1)


@singledispatch
def _build(operation: Operation, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    raise UnsupportedError(f"e3nn has no {operation.name!r}; choose another backend with --backend")


def _method() -> str:
    return f"e3nn {version('e3nn')} {get_optimization_defaults()['jit_mode']}"


@_build.register
def _convolution(operation: Convolution, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """o3.TensorProduct on gathered features and index_add, as NequIP and MACE do without their own kernels."""
    source = [(count, (degree, 1)) for degree, count in enumerate(operation.channels)]
    edge = [(1, (degree, 1)) for degree in range(operation.edge_lmax + 1)]
    target = [(operation.channels[path.source], (path.target, 1)) for path in operation.paths]
    product = o3.TensorProduct(
        o3.Irreps(source),
        o3.Irreps(edge),
        o3.Irreps(target),
        # Parity is in the choice of the paths already.
        [(path.source, path.edge, number, "uvu", True) for number, path in enumerate(operation.paths)],
        shared_weights=False,
        internal_weights=False,
        path_normalization="element",
    ).to(dtype=dtype, device=device)
    source_blocks = degree_blocks(operation.channels)
    target_blocks = [(operation.channels[path.source], 2 * path.target + 1) for path in operation.paths]

    def adapt(inputs: Tensors) -> Tensors:
        return {**inputs, "x": channels_outermost(inputs["x"], source_blocks)}

    def run(inputs: Tensors) -> Tensor:
        x, edge_index = inputs["x"], inputs["edge_index"]
        messages = product(x.index_select(0, edge_index[0]), inputs["harmonics"], inputs["weights"])
        return x.new_zeros((x.shape[0], messages.shape[1])).index_add(0, edge_index[1], messages)

    return Kernel(run, _method(), adapt, lambda output: channels_innermost(output, target_blocks))
