"""Sees the sums by index that torch is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class SeenSums(TorchDispatchMode):
    """Inside the block, ``dtypes`` gathers those in which rows are added up by an index."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, and note the dtype of a sum."""
        if "index_add" in func.name() or "scatter_add" in func.name():
            self.dtypes.add(args[0].dtype)
        return func(*args, **(kwargs or {}))
