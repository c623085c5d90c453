"""What a device does at most, measured on torch's threads: bytes a second by the size of what is
passed through, near and far, and operations a second of matrix products and convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.kernels.caches import cache_bytes, cache_levels
from equivbench.kernels.timing import Timer

SMALLEST, LARGEST = 2**15, 2**28
"""Bytes of the least and the greatest size that bandwidth is measured at, by factors of two; the
greatest is eight times the last cache where that is more, of which little stays in it."""
_SAMPLE = 1e-3
"""Seconds that a sample of bandwidth lasts at least."""
_TRIES = 10
_MOST_CALLS = 2**20
"""No clock stands still over so many."""
_MATRICES = {"cpu": (192, 384, 768), "cuda": (1024, 4096)}
"""Rows of the square matrices whose products are timed: the fastest counts, and of small ones some
are timed between two turns of whatever else runs."""
_CONVOLUTIONS: tuple[tuple[int, tuple[int, ...]], ...] = (
    (128, (32, 32)),
    (128, (64, 64)),
    (96, (24, 24, 24)),
)
"""Channels and output of the convolutions that are timed on a CPU, whose libraries may be faster at
them than at products: twice as fast on an AMD EPYC of family 26."""
_TAPS = 3


@dataclass(frozen=True)
class BandwidthCurve:
    """Bytes a second by the size in bytes of what is passed through again and again."""

    sizes: tuple[float, ...]
    """Ascending."""
    rates: tuple[float, ...]
    """Never ascending."""

    @classmethod
    def through(cls, measured: Mapping[int, float]) -> BandwidthCurve:
        """The curve over the ``measured`` bytes a second by size.

        What is nearer is at least as fast as what is farther: where a small size was measured
        slower, for what a call costs beside the bytes, the rate of the larger one holds.
        """
        sizes = sorted(measured)
        rates = itertools.accumulate((measured[size] for size in reversed(sizes)), max)
        return cls(tuple(map(float, sizes)), tuple(reversed(list(rates))))

    def at(self, size: float) -> float:
        """Bytes a second at ``size``, between two measured sizes by a power law; beyond all of them
        as at the last."""
        places, heights = np.log(self.sizes), np.log(self.rates)
        return float(np.exp(np.interp(math.log(max(size, 1.0)), places, heights)))

    def best(self, other: BandwidthCurve) -> BandwidthCurve:
        """The greater of both at each size of this one."""
        rates = (
            max(rate, other.at(size)) for size, rate in zip(self.sizes, self.rates, strict=True)
        )
        return BandwidthCurve(self.sizes, tuple(rates))


@dataclass(frozen=True)
class Ceilings:
    """What a device was seen to do at most."""

    reading: BandwidthCurve
    writing: BandwidthCurve
    copying: BandwidthCurve
    """Bytes read and bytes written; its sizes are those of both together."""
    operations: float
    """A second, of a matrix product or a dense convolution."""
    levels: Mapping[int, int] = field(default_factory=dict)
    """:func:`equivbench.kernels.caches.cache_levels`."""
    tf32: bool | None = None
    """Whether products could use TF32; None where there is none."""

    @property
    def copy(self) -> float:
        """Bytes a second, read and written, of a copy larger than the caches."""
        return self.copying.rates[-1]

    def seconds(self, read: float, written: float, size: float) -> float:
        """The least that ``read`` and ``written`` bytes were seen to take where ``size`` bytes are
        passed through: one after the other, or at once as in a copy where that is faster."""
        reading, writing = self.reading.at(size), self.writing.at(size)
        both = min(read, written)
        copied = 2 * both / self.copying.at(size)
        apart = read / reading + written / writing
        return min(apart, copied + (read - both) / reading + (written - both) / writing)

    def best(self, other: Ceilings) -> Ceilings:
        """The greater of both everywhere: noise only ever lowers what is measured."""
        return Ceilings(
            self.reading.best(other.reading),
            self.writing.best(other.writing),
            self.copying.best(other.copying),
            max(self.operations, other.operations),
            self.levels,
            self.tf32,
        )


def measure_ceilings(
    device: torch.device,
    dtype: torch.dtype,
    *,
    clock: Timer | None = None,
    largest: int | None = None,
) -> Ceilings:
    """Measure the ceilings of ``device`` for numbers of ``dtype``, on torch's number of threads: a
    few seconds, the best of several tries of everything.

    ``largest`` is the greatest size in bytes (default: :data:`LARGEST` or eight times the
    last cache). Raises ``FailedError`` where the clock does not move.
    """
    # Torch's own threads may still wind down from what they did before.
    clock = clock or Timer(device, watched=False)
    top = largest or max(LARGEST, 8 * cache_bytes(device))
    sizes = list(itertools.takewhile(lambda size: size < top, (SMALLEST << n for n in range(40))))
    memory = torch.ones(top // 4, dtype=torch.float32, device=device)
    rates: dict[str, dict[int, float]] = {"reading": {}, "writing": {}, "copying": {}}
    for size in (*sizes, top):
        for what, works in _passes(memory[: size // 4]).items():
            rates[what][size] = size / min(_least(work, clock, device) for work in works)
    del memory
    reading, writing, copying = map(BandwidthCurve.through, rates.values())
    # What holds numbers of 16 bits may compute with them as with those of 32.
    computed = {dtype} if dtype.itemsize >= 4 else {dtype, torch.float32}
    return Ceilings(
        reading,
        writing,
        copying,
        max(_arithmetic(each, clock, device) for each in computed),
        cache_levels(device),
        torch.backends.cuda.matmul.allow_tf32 if device.type == "cuda" else None,
    )


def _passes(memory: Tensor) -> dict[str, tuple[Callable[[], object], ...]]:
    """Several ways to read and to write ``memory`` once, and one that copies half of it onto the
    other half; of each kind the fastest counts."""
    half = len(memory) // 2
    first, second = memory[:half], memory[half : 2 * half]
    return {
        "reading": (memory.sum, lambda: torch.dot(first, second)),
        "writing": (lambda: memory.fill_(1.0), memory.zero_),
        "copying": (lambda: second.copy_(first),),
    }


def _arithmetic(dtype: torch.dtype, clock: Timer, device: torch.device) -> float:
    """Operations a second in ``dtype``, of products of two square matrices or, in float32 on a CPU,
    of dense convolutions."""
    found: list[float] = []
    for rows in _MATRICES[device.type]:
        if found and device.type == "cpu" and dtype.itemsize < 4:
            break  # a product of 16 bits may take a hundred times as long there
        first, second = (torch.ones(rows, rows, dtype=dtype, device=device) for _ in range(2))
        out = torch.empty_like(first)
        seconds = _least(partial(torch.mm, first, second, out=out), clock, device)
        found.append(2 * rows**3 / seconds)
    for channels, output in _CONVOLUTIONS:
        if device.type != "cpu" or dtype != torch.float32:
            break
        grid = [size + _TAPS - 1 for size in output]
        image = torch.ones(1, channels, *grid, dtype=dtype)
        filters = torch.ones(channels, channels, *[_TAPS] * len(grid), dtype=dtype)
        convolve: Callable[..., Tensor] = torch.conv2d if len(grid) == 2 else torch.conv3d
        seconds = _least(partial(convolve, image, filters), clock, device)
        products = channels**2 * _TAPS ** len(grid) * math.prod(output)
        found.append(2 * products / seconds)
    return max(found)


def _least(work: Callable[[], object], clock: Timer, device: torch.device) -> float:
    """The least seconds of ``work`` over some samples, each of enough calls for the clock to tell.

    Raises ``FailedError`` where it stands still.
    """
    calls = 1
    samples: list[float] = []
    work()
    while len(samples) < _TRIES:

        def repeated(calls: int = calls) -> None:
            for _ in range(calls):
                work()

        taken = clock.seconds(repeated)
        if taken >= _SAMPLE:
            samples.append(taken / calls)
        elif calls >= _MOST_CALLS:
            raise FailedError(
                f"{calls} passes or products take no time by the clock of {device}; it is broken"
            )
        else:
            calls *= 2 if taken > _SAMPLE / 8 else 8
    return min(samples)
