"""Seconds that compiling took for kernels which were found compiled: a run is charged for them all
the same, so that an arm costs on every run what it costs on the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_spared = 0.0


def spare(seconds: float) -> None:
    """Note that a compilation which once took ``seconds`` was spared to this process."""
    global _spared
    _spared += seconds


def take_spared() -> float:
    """The seconds that were spared since the last call."""
    global _spared
    seconds, _spared = _spared, 0.0
    return seconds


@contextmanager
def uncharged() -> Iterator[None]:
    """What is found compiled inside the block is charged to nobody: it is no part of what training
    costs."""
    global _spared
    before = _spared
    try:
        yield
    finally:
        _spared = before
