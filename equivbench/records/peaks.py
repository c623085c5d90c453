"""What devices can do at most: a record that claims more is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Width = Literal["64", "32", "16"]
T = 1e12


@dataclass(frozen=True)
class Peak:
    """Operations a second by the bits of the numbers (dense, the fastest unit there is), bytes a
    second of its memory."""

    operations: dict[Width, float]
    bandwidth: float


def _gpu(double: float, single: float, half: float, bandwidth: float) -> Peak:
    return Peak({"64": double * T, "32": single * T, "16": half * T}, bandwidth * T)


# Tera-operations a second in 64, 32 (TF32 or matrix units where there are, since torch may use
# them) and 16 bits, without sparsity, and TB/s, by pattern of the name that torch gives. The first
# that matches counts; of variants under one name the fastest stands here. H100, H200, A100, A10,
# L4, L40S, V100, T4 and P100 agree with collections of NVIDIA's data sheets
# (glennklockwood.com/garden/processors/h100, github.com/winston-zhang-orz/gpu-specs); B200 is the
# larger of two that differ. The other rows were not looked up: compare them with the maker's sheet
# before a record is refused for one of them.
GPUS: tuple[tuple[str, Peak], ...] = (
    (r"\bGB200\b|\bGB300\b|\bB200\b|\bB300\b", _gpu(90, 1250, 2500, 8.0)),
    (r"\bGH200\b|\bH200\b", _gpu(67, 495, 990, 4.9)),
    (r"\bH100\b|\bH800\b", _gpu(67, 495, 990, 3.9)),
    (r"\bH20\b", _gpu(67, 495, 990, 4.0)),
    (r"\bA100\b|\bA800\b", _gpu(19.5, 156, 312, 2.04)),
    (r"\bA30\b", _gpu(10.3, 82, 165, 0.933)),
    (r"\bA40\b|\bA6000\b|\bRTX A\d000\b", _gpu(1.2, 75, 150, 0.77)),
    (r"\bA10G?\b", _gpu(1.0, 62.5, 125, 0.6)),
    (r"\bL40S?\b|\bRTX 6000 Ada\b", _gpu(1.5, 183, 366, 0.96)),
    (r"\bL4\b", _gpu(0.5, 60, 121, 0.3)),
    (r"\bV100\b", _gpu(8.2, 16.4, 130, 1.134)),
    (r"\bT4\b", _gpu(0.26, 8.2, 65, 0.32)),
    (r"\bP100\b", _gpu(5.3, 10.6, 21.2, 0.732)),
    (r"\bRTX 50\d0\b", _gpu(1.7, 210, 420, 1.8)),
    (r"\bRTX 40\d0\b", _gpu(1.3, 83, 331, 1.01)),
    (r"\bRTX 30\d0\b", _gpu(0.65, 41, 160, 1.01)),
    (r"\bRTX 20\d0\b", _gpu(0.45, 14.3, 114, 0.62)),
    (r"\bMI3[05]\d[XA]?\b|\bMI325X\b", _gpu(164, 654, 2310, 8.0)),
    (r"\bMI2[015]\d?X?\b", _gpu(96, 96, 383, 3.3)),
)
# Two 512-bit fused multiply-adds a cycle are 64 operations in 32 bits; no processor sustains 6.5
# GHz.
_CORE = 64 * 6.5e9
# Intel's AMX does 1024 multiply-adds of 16 bits a cycle and core (Intel's optimisation manual,
# 2023).
_CORE_MATRIX = 2 * 1024 * 4.5e9
# One thread alone can use the matrix unit of a whole cluster of an Apple chip: about 2 Tflop/s in
# 32 bits, measured; doubled.
_APPLE = 4e12
# The widest memory of a CPU: HBM of Xeon Max, 2 x 1.6 TB/s, and 24 channels of MRDIMM-12800, 2 x
# 1.2 TB/s in two sockets.
_CPU_BANDWIDTH = 3.3e12
CACHE_FACTOR = 10.0
"""How much faster than memory the last cache of a device can be: 5.5 TB/s over 2 on an A100, up to
8 on large L3 caches."""


def peak_of(device: str, cpu: str, threads: int) -> Peak | None:
    """The peak of ``device`` (``cpu``, or the GPU's name as torch gives it); None for a GPU that is
    not in the table.

    For a CPU a bound by threads that is generous: twice what the widest vector units reach.
    """
    if device == "cpu":
        core = _CORE + (_APPLE if "apple" in cpu.lower() else 0.0)
        return Peak(
            {"64": threads * core / 2, "32": threads * core, "16": threads * (core + _CORE_MATRIX)},
            _CPU_BANDWIDTH,
        )
    for pattern, peak in GPUS:
        if re.search(pattern, device):
            return peak
    return None


def beyond(
    peak: Peak, width: Width, *, operations: float, moved: float, seconds: float
) -> Iterator[str]:
    """What a device with this ``peak`` cannot have done in ``seconds``: so many ``operations`` in
    ``width`` bits, or so many bytes ``moved``."""
    rate, most = operations / seconds, peak.operations[width]
    if rate > most:
        yield (
            f"{rate:.3g} operations a second are more than the {most:.3g} that it can do in "
            f"{width} bits"
        )
    if moved / seconds > CACHE_FACTOR * peak.bandwidth:
        yield f"{moved / seconds:.3g} bytes a second are more than any cache of it gives"


def width_of(precision: str) -> Width:
    """The bits of the numbers of a precision as records name it: ``float64``, ``float32``,
    ``bfloat16``, ``amp-float16``."""
    return "64" if "64" in precision else "16" if "16" in precision or "8" in precision else "32"
