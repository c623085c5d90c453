"""Code that was compiled on this machine, held against the float64 reference before its first use:
a compiler may be at fault, and so may the file that it left."""

from __future__ import annotations

import torch

from equivbench.kernels.backend import Kernel
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.operands import Operands
from equivbench.kernels.operations import Case, Operation
from equivbench.kernels.operations.base import Sizes
from equivbench.kernels.problem import pose
from equivbench.specs import MODES


def check_first_use(kernel: Kernel, operation: Operation, sizes: Sizes, like: torch.Tensor) -> None:
    """Compare output, gradients and second gradients of ``kernel`` with those of ``operation`` on
    random inputs of ``sizes``, of the dtype and device of ``like``.

    Raises ``WrongKernelError`` where they disagree.
    """
    mode = MODES[kernel.max_derivatives]
    case = Case(operation.name, operation, sizes, kernel.max_derivatives, "the first use")
    # A network may be copied, and so its kernels be built, where no gradients are recorded.
    with torch.inference_mode(False), torch.enable_grad():
        problem = pose(case, mode, dtype=like.dtype, device=like.device)
        operands = Operands(kernel, problem, mode, cache=0)
        try:
            given = zip(operands.slots, operands.instances, operands.answers, strict=True)
            for slot, instance, answers in given:
                operands.check(slot, instance, operands.call(slot), answers)
        except WrongKernelError as error:
            raise WrongKernelError(
                f"the kernels compiled here for {operation.name!r} in {like.dtype} are wrong:"
                f" {error}; remove the folder of compiled kernels (`kernels` in the cache), name"
                " another compiler in CXX, or choose --kernels torch"
            ) from error
