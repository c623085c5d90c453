"""The arithmetic that a model is evaluated in: its names, how it rounds and how finely."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

EvaluationPrecision = Literal["float32", "tf32", "bf16", "float64"]

PRECISION_OF: Mapping[torch.dtype, EvaluationPrecision] = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bf16",
}
"""The precision of a model by the dtype of its weights, or of its inputs."""


def input_dtype(precision: EvaluationPrecision) -> torch.dtype:
    """Of a model's floating-point inputs; reduced precisions start from float32."""
    return torch.float64 if precision == "float64" else torch.float32


def _to_tf32(values: Tensor) -> Tensor:
    """Rounded to the 10 explicit mantissa bits that TF32 keeps of a float32."""
    bits = values.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


ROUNDINGS: Mapping[EvaluationPrecision, Callable[[Tensor], Tensor]] = {
    "float64": lambda values: values,
    "float32": lambda values: values.float(),
    "tf32": _to_tf32,
    "bf16": lambda values: values.bfloat16(),
}


EPS: Mapping[EvaluationPrecision, float] = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "tf32": 2.0**-10,
    "bf16": 2.0**-7,
}
"""Distance from 1 to the next number of each precision."""


def cast(batch: Mapping[str, Tensor], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The batch with its floating-point tensors in ``dtype``."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in batch.items()
    }
