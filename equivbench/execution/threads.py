"""How many threads an analysis computes with: those of the run it is of, so that it lies beside
that run's record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """``count`` intra-op threads inside the block, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
