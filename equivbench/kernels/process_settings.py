"""Settings of the process that whoever runs somebody's model or kernel puts back afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch


class Settings(NamedTuple):
    """Settings of this process that decide what is computed and how fast, and that one could
    change for everybody."""

    threads: int
    default_dtype: torch.dtype
    gradients: bool
    matmul_precision: str
    deterministic: bool

    @classmethod
    def now(cls) -> Settings:
        """Those that hold at this moment."""
        return cls(
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
        )

    def put_back(self) -> list[str]:
        """Make the settings these again; returns in words which of them had changed."""
        now = Settings.now()
        if now == self:
            return []
        changed = []
        for name, before, after in zip(self._fields, self, now, strict=True):
            words, put = _SETTERS[name]
            if after != before:
                put(before)
                changed.append(f"{words} (from {before} to {after})")
        return changed


_SETTERS: Mapping[str, tuple[str, Callable[[Any], object]]] = {
    "threads": ("the number of threads", torch.set_num_threads),
    "default_dtype": ("the default dtype", torch.set_default_dtype),
    "gradients": ("whether gradients are computed", torch.set_grad_enabled),
    "matmul_precision": (
        "the precision of matrix products",
        torch.set_float32_matmul_precision,
    ),
    "deterministic": (
        "whether algorithms are deterministic",
        torch.use_deterministic_algorithms,
    ),
}
"""By field of :class:`Settings`: what it is called and what sets it."""


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """The settings of the process are afterwards what they were, whatever the block does (building
    a foreign model often sets the default dtype)."""
    before = Settings.now()
    try:
        yield
    finally:
        before.put_back()
