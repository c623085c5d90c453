"""Kernel times as a table: milliseconds, the ratio to e3nn, the fraction of the bandwidth floor,
errors."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from equivbench.records.kernels import MODES, KernelSamples

COLUMNS = ("mode", "backend", "ms", "x e3nn", "of floor", "error", "compile s", "method")
BASE = "e3nn"
"""The backend that the others are compared with: what the field runs by default."""


def kernel_rows(samples: Sequence[KernelSamples]) -> list[list[str]]:
    """A row for each sample of one case, by mode and, in it, from the fastest to the slowest."""
    ordered = sorted(samples, key=lambda one: (MODES.index(one.mode), min(one.rounds)))
    base = {one.mode: one for one in samples if one.backend == BASE}
    return [_row(one, base.get(one.mode)) for one in ordered]


def speed_up(sample: KernelSamples, base: KernelSamples) -> float:
    """How many times as fast as ``base``: the median over rounds, which alternated, of the ratio of
    seconds."""
    return statistics.median(
        slow / fast for slow, fast in zip(base.rounds, sample.rounds, strict=False)
    )


def heading(source: str, sizes: Mapping[str, int], sample: KernelSamples) -> str:
    """What was timed and where: ``500 nodes, 10000 edges, float32; 2 threads of ...; copy 20.1
    GB/s; NequIP ...``."""
    size = ", ".join(f"{count} {name}" for name, count in sizes.items())
    where = sample.environment
    device = f"{where.threads} threads of {where.cpu}" if where.device == "cpu" else where.device
    copied = f"a copy runs at {sample.bandwidth / 1e9:.3g} GB/s"
    return f"{sample.case}: {size}, {sample.dtype}; {device}, {copied}; {source}"


def _row(sample: KernelSamples, base: KernelSamples | None) -> list[str]:
    worst = max(sample.errors.values(), default=0.0)
    method = sample.method
    throttled = sample.device_state.get("throttled_rounds")
    if isinstance(throttled, float) and throttled > 0:
        method += f" (throttled in {throttled:.0f} of {len(sample.rounds)} rounds: {sample.device_state['throttled_by']})"
    return [
        sample.mode,
        sample.backend,
        f"{1e3 * min(sample.rounds):.4g}",
        "-" if base is None else f"{speed_up(sample, base):.2f}",
        f"{sample.fraction_of_floor:.0%}",
        f"{worst:.0e}",
        f"{sample.compile_seconds:.1f}" if sample.compile_seconds else "-",
        method,
    ]
