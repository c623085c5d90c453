"""Measurements for tests of the gate: rounds and seeds with stated noise, samples on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from toy_roofline import toy_roofline

from equivbench.gate.samples import GateSamples, Samples, Side
from equivbench.records.line_files import KernelSamples
from equivbench.records.metrics import METRICS
from equivbench.records.schema import Environment, Git

CONTEXT = {"machine": "toy-cpu-1t", "benchmark version": "1"}


def rounds(values: Sequence[float], name: str = "work", **changes: Any) -> Samples:
    """Seconds of one benchmark, one value a round."""
    settings: dict[str, Any] = {
        "name": name,
        "metric": METRICS["seconds"],
        "unit": "round",
        "values": dict(enumerate(values)),
        "context": CONTEXT,
        "source": "file.jsonl",
        "session": "one",
        "dirty": False,
    }
    return Samples(**{**settings, **changes})


def seeds(values: Sequence[float], metric: str = "total", **changes: Any) -> Samples:
    """Values of a training metric, one a seed."""
    return rounds(
        values,
        **{
            "metric": METRICS[metric],
            "unit": "seed",
            "session": None,
            "deterministic": True,
            **changes,
        },
    )


def noisy(level: float, spread: float, count: int, seed: int) -> list[float]:
    """``count`` positive values around ``level`` with relative spread ``spread``."""
    values: list[float] = (
        level * np.exp(spread * np.random.default_rng(seed).standard_normal(count))
    ).tolist()
    return values


def side(*measurements: Samples) -> Side:
    return Side(measurements)


def gate_samples(values: Sequence[float], **changes: Any) -> GateSamples:
    """A line of the gate's own samples."""
    settings: dict[str, Any] = {
        "created": "2026-01-02T03:04:05Z",
        "command": "equivbench check --interleave a b",
        "session": "one",
        "revision": "a",
        "benchmark": "work",
        "version": "1",
        "control": False,
        "rounds": [[value] for value in values],
        "environment": environment(),
        "git": Git(commit="0" * 40, dirty=False),
    }
    return GateSamples(**{**settings, **changes})


def kernel_samples(values: Sequence[float], **changes: Any) -> KernelSamples:
    """A line that `equivbench kernels` writes."""
    settings: dict[str, Any] = {
        "created": "2026-01-02T03:04:05Z",
        "command": "equivbench kernels",
        "case": "convolution-c64-l2",
        "mode": "forward",
        "backend": "fused",
        "method": "c",
        "dtype": "float32",
        "rounds": list(values),
        "compile_seconds": 0.0,
        "errors": {"output": 1e-7},
        "bytes_fused": 1e6,
        "bytes_unfused": 2e6,
        "operations": 1e7,
        "bandwidth": 1e10,
        "allocator": {},
        "environment": environment(),
        "git": Git(commit="0" * 40, dirty=False),
        **changes,
    }
    return KernelSamples(**{"roofline": toy_roofline(settings), **settings})


def environment(machine: str = "toy-cpu-1t") -> Environment:
    return Environment(
        machine_key=machine,
        device="cpu",
        driver=None,
        cpu="Toy",
        threads=1,
        python="3.11.0",
        packages={},
    )
