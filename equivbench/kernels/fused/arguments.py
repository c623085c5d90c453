"""Whether the tensors of a call are those that a kernel reads: compiled code goes by their sizes
and looks at nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from equivbench.kernels.fused.derivatives import FusedCall

Shape = Sequence[int]


def check_arguments(
    call: FusedCall, inputs: Mapping[str, Shape], output: Shape, index: tuple[str, Shape]
) -> None:
    """Raise ``ValueError`` where a kernel would read past the end of a tensor, take it for another
    type, or be asked for what it does not compute.

    ``inputs`` are their shapes by name, of which the first tells the type of all; ``index`` is name
    and shape.
    """
    operation = call.description[0]
    one = call.inputs[0]
    names = (*inputs, "grad", *(f"by_{name}" for name in inputs), index[0])
    shapes = (*inputs.values(), output, *inputs.values(), index[1])
    given = (*call.inputs, call.grad, *call.tangents, call.indices)
    dtype, device = one.dtype, one.device
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{names[0]} of the {operation} is {dtype}; it must be torch.float32 or torch.float64"
        )
    for name, tensor, shape in zip(names, given, shapes, strict=True):
        if tensor is None:
            continue
        if tensor.shape != torch.Size(shape):
            raise ValueError(
                f"{name} of the {operation} is {list(tensor.shape)}; it must be {list(shape)}"
            )
        wanted = torch.int64 if tensor is call.indices else dtype
        if tensor.dtype != wanted or tensor.device != device or tensor.layout is not torch.strided:
            raise ValueError(
                f"{name} of the {operation} is {tensor.dtype} on {tensor.device},"
                f" {tensor.layout}; beside {names[0]}, which is {dtype} on {device}, it must be"
                f" {wanted} on {device}, torch.strided"
            )
    along = any(one is not None for one in call.tangents)
    # Without grad only the output, plain or along tangents; with it the output along tangents only.
    absent = call.needs[1:] if call.grad is None else call.needs[:1] if not along else ()
    if len(call.needs) != 1 + len(inputs) or any(absent):
        raise ValueError(
            f"the {operation} has no results {list(call.needs)}"
            f" {'without' if call.grad is None else 'with'} grad"
        )
