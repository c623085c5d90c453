"""The arithmetic of a recipe: float32, TF32 matrix products on CUDA, or bfloat16 autocast."""

from __future__ import annotations

import contextlib

import torch

from equivbench.specs import Precision


def effective(precision: Precision, device: torch.device) -> Precision:
    """What ``precision`` amounts to on ``device``: TF32 exists on CUDA only."""
    return "float32" if precision == "tf32" and device.type != "cuda" else precision


def use(precision: Precision) -> None:
    """Set this process's matrix products to TF32 or to full float32 (convolutions included)."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(
    precision: Precision, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    """The context of a forward pass: bfloat16 autocast, or nothing."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
