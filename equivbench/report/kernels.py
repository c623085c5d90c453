"""Kernel times as a table: milliseconds, the ratio to e3nn, how near to the roof and which part of
it binds, errors."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from equivbench.counted import counted
from equivbench.records.line_files import KernelSamples, of_newest_code
from equivbench.report.table import Cell, Column, Missing, Table
from equivbench.report.text import number_text
from equivbench.specs import MODES

COLUMNS = (
    Column("mode", key=True),
    Column("backend", key=True),
    Column("ms", "number"),
    Column("graph ms", "number", show="filled"),
    Column("x e3nn", "number"),
    Column("of roof", "percent", digits=2),
    Column("bound by", spare=True),
    Column("error", "number", digits=1),
    Column("compile", "seconds", spare=True),
    Column("method", spare=True),
)
LEGEND = (
    "ms: least time a call over all rounds; graph ms, on a GPU: the same replayed from a CUDA "
    "graph, without Python between the launches; x e3nn: times as fast as e3nn eager, the median "
    "over rounds that alternate; of roof: of the speed that the device was seen to allow; bound "
    "by: what allows no more, the bandwidth of where the bytes lie or the arithmetic of matrix "
    "products and convolutions; error: the worst against float64; compile: before the first call, "
    "not in ms"
)
OLD_ROOFLINE = Missing("old roofline")
"""In place of the fraction of a sample that was held against a large copy alone."""
BASE = "e3nn"
"""The backend that the others are compared with: what the field runs by default."""


def kernel_table(samples: Sequence[KernelSamples], title: str = "") -> Table:
    """Make the table of the samples of one case, by mode and, in it, from the fastest to the
    slowest. Of samples of one thing, those of the code that was timed last, the first counts; the
    others are shown beside it."""
    ordered = in_order(samples)
    base = {one.mode: one for one in ordered if one.backend == BASE}
    later = {own[0].identity: own[1:] for own in of_newest_code(samples)}
    rows = [_row(one, base.get(one.mode), later[one.identity]) for one in ordered]
    return Table(title, COLUMNS, rows)


def in_order(samples: Sequence[KernelSamples]) -> list[KernelSamples]:
    """Those of one case's samples that count, in the order of its table."""
    counting = [own[0] for own in of_newest_code(samples)]
    return sorted(counting, key=lambda one: (MODES.index(one.mode), min(one.rounds)))


def _row(
    sample: KernelSamples, base: KernelSamples | None, later: Sequence[KernelSamples]
) -> list[Cell]:
    return [
        sample.mode,
        sample.backend,
        1e3 * min(sample.rounds),
        1e3 * min(sample.graph_rounds) if sample.graph_rounds else None,
        None if base is None else speed_up(sample, base),
        OLD_ROOFLINE if sample.roofline is None else sample.roofline.fraction,
        None if sample.roofline is None else sample.roofline.binding,
        max(sample.errors.values(), default=0.0),
        sample.compile_seconds or None,
        _method(sample) + _repetitions(later),
    ]


def _repetitions(later: Sequence[KernelSamples]) -> str:
    """What is said of samples that repeat the one that counts."""
    if not later:
        return ""
    times = ", ".join(number_text(1e3 * min(each.rounds)) for each in later)
    return f" (timed again: {times} ms; the first counts)"


def _method(sample: KernelSamples) -> str:
    """How the sample was timed, and whether the GPU was throttled meanwhile."""
    throttled = sample.device_state.get("throttled_rounds")
    if not isinstance(throttled, float) or throttled <= 0:
        return sample.method
    rounds, cause = len(sample.rounds), sample.device_state["throttled_by"]
    return f"{sample.method} (throttled in {throttled:.0f} of {rounds} rounds: {cause})"


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
    device = (
        f"{counted(where.threads, 'thread')} of {where.cpu}"
        if where.device == "cpu"
        else where.device
    )
    copied = f"a copy runs at {number_text(sample.bandwidth / 1e9)} GB/s"
    return f"{sample.case}: {size}, {sample.dtype}; {device}, {copied}; {source}"
