"""Triton functions of written source, and their launches."""

from __future__ import annotations

import hashlib
import importlib
import linecache
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.kernels.fused.triton_text import Accumulate


@lru_cache(maxsize=256)
def triton_function(name: str, source: str) -> Any:
    """The function ``kernel`` that ``source`` defines, for the operation ``name``; it is compiled
    in its first call for each kind of argument.

    Raises ``FailedError`` where triton is absent.
    """
    try:
        triton, tl = importlib.import_module("triton"), importlib.import_module("triton.language")
    except ImportError as error:
        raise FailedError(
            "the Triton kernels need triton, not installed here: pip install triton"
        ) from error
    # Triton reads a function's source through inspect, which finds code without a file in
    # linecache.
    file = f"<{name} {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"triton": triton, "tl": tl, "__name__": f"{__name__}.generated"}
    exec(compile(source, file, "exec"), namespace)
    return namespace["kernel"]


def run_programs(function: Any, programs: int, tensors: Sequence[Tensor]) -> None:
    """``programs`` programs of one warp each on ``tensors``."""
    if programs:
        # Triton launches on the current device, whatever the tensors are on. Products and sums are
        # fused: more accurate, and no longer Triton's default from 3.10 on.
        with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]
            function[(programs,)](*tensors, num_warps=1, enable_fp_fusion=True)


def accumulate_in(x: Tensor) -> Accumulate:
    """In what is added up where the numbers are those of ``x``."""
    return "float64" if x.dtype == torch.float64 else "float32"


def block_of(channels: int, most: int) -> int:
    """Channels of a program: a power of two, as Triton wants it, at most ``most`` and no more than
    there are."""
    return min(most, 1 << (channels - 1).bit_length())
