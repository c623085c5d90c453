"""Kernels held against the float64 reference before their first use in a network: what compiled
them may be at fault, so may the file that it left, and so may whoever wrote them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor, nn

from equivbench.errors import EquivbenchError, FailedError
from equivbench.kernels.backend import Kernel, OnBackend
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.operands import Operands
from equivbench.kernels.operations import Case, Operation
from equivbench.kernels.problem import pose
from equivbench.registry import KERNEL_BACKENDS
from equivbench.specs import MODES, Mode

SIZES = {
    "nodes": 20,
    "edges": 130,
    "elements": 3,
    "molecules": 3,
    "atoms": 7,
    "samples": 2,
    "residues": 9,
    "size": 5,
}
"""Small, with edges enough for two threads of ``fused``."""


def check_kernels(model: nn.Module) -> None:
    """Hold each kernel of ``model`` that is not of the ``torch`` backend and was not held so as it
    was built against its reference, those of one operation once.

    Raises ``WrongKernelError`` where output, gradients or second gradients disagree, and
    ``FailedError`` where a kernel fails.
    """
    seen = set()
    for module in model.modules():
        if not isinstance(module, OnBackend) or module.name == "torch":
            continue
        key = module.name, module.operation, module._like.dtype
        if key not in seen and not module.kernel.checked:
            seen.add(key)
            check_first_use(module.kernel, module.operation, module.name, module._like)


def check_first_use(kernel: Kernel, operation: Operation, name: str, like: Tensor) -> None:
    """Compare output, gradients and second gradients of ``kernel``, of the backend ``name``, with
    those of ``operation`` on small random inputs of the dtype and device of ``like``.

    Second gradients that a kernel refuses are left to the networks that need them. Raises as
    :func:`check_kernels`.
    """
    most = min(kernel.max_derivatives, 2) if operation.differentiable else 0
    try:
        operation.arguments(SIZES)
    except KeyError:
        return  # somebody's own operation, of sizes of its own: left to `equivbench kernels`
    # A network may be copied, and so its kernels be built, where no gradients are recorded.
    with torch.inference_mode(False), torch.enable_grad(), _compiled_apart(name):
        for mode in reversed(MODES[: most + 1]):
            try:
                _check(kernel, operation, mode, like)
                return
            except WrongKernelError as error:
                raise WrongKernelError(
                    f"kernel backend {name} is wrong on {operation.name!r} in {like.dtype}:"
                    f" {error}; choose another with --kernels, or, where it was compiled here,"
                    " remove the folder of compiled kernels (`kernels` in the cache) and name"
                    " another compiler in CXX"
                ) from error
            except EquivbenchError:
                raise
            except Exception as error:  # a backend may raise anything
                if mode != MODES[2]:
                    what = (str(error).strip() or "no message").splitlines()[0]
                    raise FailedError(
                        f"kernel backend {name} fails on {operation.name!r} ({mode}):"
                        f" {type(error).__name__}: {what}"
                    ) from error


def _check(kernel: Kernel, operation: Operation, mode: Mode, like: Tensor) -> None:
    case = Case(operation.name, operation, SIZES, MODES.index(mode), "the first use")
    problem = pose(case, mode, dtype=like.dtype, device=like.device)
    operands = Operands(kernel, problem, mode, cache=0)
    given = zip(operands.slots, operands.instances, operands.answers, strict=True)
    for slot, instance, answers in given:
        operands.check(slot, instance, operands.call(slot), answers)


@contextlib.contextmanager
def _compiled_apart(name: str) -> Iterator[None]:
    """What is compiled inside the block is compiled anew, by Triton, or not at all, by torch; and
    TF32 is off."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn
    tf32 = convolutions.allow_tf32
    eager = KERNEL_BACKENDS.get(name).slow_to_build
    with (
        tempfile.TemporaryDirectory(
            prefix="equivbench-compiler-", ignore_cleanup_errors=True
        ) as folder,
        patch.dict(os.environ, {"TRITON_CACHE_DIR": folder}),
        # Small sizes are not what a network is compiled for.
        torch.compiler.set_stance("force_eager") if eager else contextlib.nullcontext(),
    ):
        torch.set_float32_matmul_precision("highest")
        convolutions.allow_tf32 = False
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            convolutions.allow_tf32 = tf32
