"""What no kernel sample and no analysis can say: faster than the device, less exact than was
checked, intervals inside out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from equivbench.records.analyses import (
    ANALYSIS_SCHEMA_VERSION,
    Analysed,
    Curvature,
    Estimate,
    Gradients,
    Landscape,
)
from equivbench.records.kernels import KERNEL_SCHEMA_VERSION, KernelSamples
from equivbench.records.peaks import CACHE_FACTOR, peak_of, width_of
from equivbench.records.plausibility import date_problems, too_large

LARGEST_ERROR = {"64": 1e-11, "32": 1e-4, "16": 1e-1}
"""By bits: what a backend may be off the reference at most and still be timed
(:mod:`equivbench.kernels.checking`)."""
ROUNDING = 1e-9
"""Relative: one division and one product in float64."""
COPY_SLACK = 1.1
"""A copy may be timed a little above the data sheet's bandwidth: boost clocks of memory, and
timers."""


def line_problems(line: KernelSamples | Gradients | Landscape) -> list[str]:
    """Why ``line`` of a file of kernel samples or analyses cannot be right, one sentence each."""
    beyond = too_large(msgspec.to_builtins(line))
    if beyond is not None:
        return [beyond]
    found = [*_version(line), *date_problems(line.created)]
    if isinstance(line, KernelSamples):
        return [*found, *_kernel(line)]
    found += _analysed(line)
    return [*found, *(_gradients(line) if isinstance(line, Gradients) else _landscape(line))]


def _version(line: KernelSamples | Analysed) -> Iterator[str]:
    expected = KERNEL_SCHEMA_VERSION if isinstance(line, KernelSamples) else ANALYSIS_SCHEMA_VERSION
    if line.schema_version != expected:
        yield f"schema version {line.schema_version}, this equivbench reads version {expected}"


def _kernel(sample: KernelSamples) -> Iterator[str]:
    if not sample.rounds or min(sample.rounds) <= 0:
        yield "rounds must be seconds above zero, one at least"
        return
    positive = {
        name: getattr(sample, name) for name in ("bytes_fused", "bytes_unfused", "bandwidth")
    }
    wrong = [f"{name} is {value:g}" for name, value in positive.items() if value <= 0]
    wrong += [
        f"{name} is {getattr(sample, name):g}"
        for name in ("operations", "compile_seconds")
        if getattr(sample, name) < 0
    ]
    yield from wrong
    if wrong:
        return
    least = min(sample.rounds)
    fraction = sample.bytes_fused / sample.bandwidth / least
    if not math.isclose(fraction, sample.fraction_of_floor, rel_tol=ROUNDING):
        yield f"fraction_of_floor is {sample.fraction_of_floor:g}, bytes, bandwidth and rounds make it {fraction:g}"
    if sample.bytes_unfused < sample.bytes_fused * (1 - ROUNDING):
        yield f"bytes_unfused {sample.bytes_unfused:g} are fewer than bytes_fused {sample.bytes_fused:g}"
    most = LARGEST_ERROR[width_of(sample.dtype)]
    for name, error in sample.errors.items():
        if not 0 <= error <= most:
            yield f"the error of {name!r} is {error:g}, outside [0, {most:g}]: such a kernel is not timed"
    if not sample.errors:
        yield "errors is empty: a kernel is timed only after it was checked"
    yield from _within_peak(sample, least)


def _within_peak(sample: KernelSamples, least: float) -> Iterator[str]:
    where = sample.environment
    peak = peak_of(where.device, where.cpu, where.threads)
    if peak is None:
        return
    width = width_of(sample.dtype)
    if sample.operations / least > peak.operations[width]:
        yield (
            f"{sample.operations / least:.3g} operations a second are more than the {peak.operations[width]:.3g} that "
            f"{where.device!r} with {where.threads} threads can do in {width} bits"
        )
    if sample.bandwidth > COPY_SLACK * peak.bandwidth:
        yield f"bandwidth {sample.bandwidth:.3g} B/s is more than the {peak.bandwidth:.3g} of {where.device!r}"
    if sample.bytes_fused / least > CACHE_FACTOR * peak.bandwidth:
        yield f"{sample.bytes_fused / least:.3g} bytes a second are more than any cache of {where.device!r} gives"


def _analysed(line: Analysed) -> Iterator[str]:
    counts = {name: getattr(line, name) for name in ("samples", "rotations")}
    yield from (f"{name} is {count}" for name, count in counts.items() if count < 1)
    if line.seconds < 0:
        yield f"seconds is {line.seconds:g}"
    for path, estimate in _estimates(line, ""):
        value, low, high = estimate.value, estimate.low, estimate.high
        inside = value is None or (
            (low is None or low <= value) and (high is None or value <= high)
        )
        if not inside or (low is not None and high is not None and low > high):
            yield f"{path}: {value} does not lie in its interval from {low} to {high}"
        if value is None and not _explained(path, line.reasons):
            yield f"{path} is null and reasons has no entry for it"


def _gradients(line: Gradients) -> Iterator[str]:
    steps = [point.step for point in line.points]
    if not steps or steps != sorted(set(steps)) or steps[0] < 0:
        yield f"the points are not at ascending steps: {steps[:10]}"
    for index, point in enumerate(line.points):
        for name in ("twirled_norm", "equivariance_norm", "ratio"):
            value = getattr(point, name).value
            if value is not None and value < 0:
                yield f"points.{index}.{name} is {value:g}, below zero"
        if point.total is not None and point.total < 0:
            yield f"points.{index}.total is {point.total:g}, below zero"
        if point.deviation is not None and point.deviation < 0:
            yield f"points.{index}.deviation is {point.deviation:g}, below zero"
        top, bottom, ratio = (
            point.equivariance_norm.value,
            point.twirled_norm.value,
            point.ratio.value,
        )
        if top is None or bottom is None or ratio is None:
            continue
        if not math.isclose(ratio * bottom, top, rel_tol=1e-6, abs_tol=1e-300):
            yield f"points.{index}.ratio is {ratio:g}, the norms {top:g} and {bottom:g} make another"
    for name, estimate in line.correlations.items():
        if any(
            value is not None and not -1 <= value <= 1
            for value in (estimate.value, estimate.low, estimate.high)
        ):
            yield f"correlations.{name} is {estimate.value}, from {estimate.low} to {estimate.high}: outside [-1, 1]"


def _landscape(line: Landscape) -> Iterator[str]:
    if line.parameters < 1:
        yield f"parameters is {line.parameters}"
    sides = [len(axis) for axis in line.axes]
    if len(sides) != 2:
        yield f"axes has {len(sides)} axes, a slice has 2"
    for name, grid in line.grids.items():
        if [len(grid), *{len(row) for row in grid}] != sides:
            yield f"grids.{name} does not have the shape of the axes, {sides}"
    for name, part in line.parts.items():
        yield from (f"parts.{name}: {problem}" for problem in _curvature(part))


def _curvature(part: Curvature) -> Iterator[str]:
    for name, values in (("largest", part.largest), ("smallest", part.smallest)):
        if values != sorted(values, reverse=name == "largest"):
            yield f"{name} is not in order"
    if part.largest and part.smallest and part.largest[0] < part.smallest[0]:
        yield f"the largest eigenvalue {part.largest[0]:g} is below the smallest, {part.smallest[0]:g}"
    bounds = {"quadratic_r2": 1.0, "fresh_r2": 1.0, "repeated": 1.0}
    for name, most in bounds.items():
        value = getattr(part, name)
        if value is not None and value > most * (1 + ROUNDING):
            yield f"{name} is {value:g}, above {most:g}"
    for name in ("residual", "roughness"):
        value = getattr(part, name)
        if value is not None and value < 0:
            yield f"{name} is {value:g}, below zero"


def _estimates(value: Any, path: str) -> Iterator[tuple[str, Estimate]]:
    if isinstance(value, Estimate):
        yield path, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _estimates(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _estimates(item, f"{path}.{key}")


def _explained(path: str, reasons: dict[str, str]) -> bool:
    return any(
        reason == path or path.startswith(f"{reason}.") or reason.startswith(f"{path}.")
        for reason in reasons
    )
