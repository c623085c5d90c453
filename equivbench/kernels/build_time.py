"""Seconds that compiling took for kernels which were found compiled: a run is charged for them all
the same, so that an arm costs on every run what it costs on the first."""

from __future__ import annotations

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
