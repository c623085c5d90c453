"""The roofline of kernel samples: operations a second against operations a byte, below the roof
that memory bandwidth sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from equivbench.records.kernels import MODES, KernelSamples
from equivbench.report.html.frame import (
    BOTTOM,
    COLOURS,
    LEFT,
    MARKERS,
    RIGHT,
    TOP,
    Key,
    chart,
    marker,
)
from equivbench.report.html.scale import LogScale, log_scale, span

X_LABEL = "useful operations per byte that must move"
Y_LABEL = "useful operations per second"


def backend_keys(samples: Sequence[KernelSamples]) -> dict[tuple[str, str], Key]:
    """A colour for each backend and a marker for each mode, by (backend, mode)."""
    colours = {
        backend: i % COLOURS for i, backend in enumerate(sorted({one.backend for one in samples}))
    }
    markers = dict(zip(MODES, MARKERS, strict=False))
    return {
        (backend, mode): Key(colour, markers[mode], "")
        for backend, colour in colours.items()
        for mode in MODES
    }


def roofline(
    title: str, samples: Sequence[KernelSamples], keys: Mapping[tuple[str, str], Key]
) -> Markup | None:
    """The chart of ``samples`` of one machine; None where none can be drawn.

    The roof is bandwidth times operations per byte, from the slowest to the fastest copy measured
    beside the samples: what lies on it moves each byte once, at the speed of a copy.
    """
    drawn = [
        (one, *_place(one))
        for one in samples
        if one.bytes_fused > 0 and one.operations > 0 and min(one.rounds) > 0
    ]
    roofs = [one.bandwidth for one, _, _ in drawn if one.bandwidth > 0]
    x = log_scale((intensity for _, intensity, _ in drawn), LEFT, RIGHT, room=0.12, least=0.5)
    if x is None:
        return None
    # The whole roof is on the axes, or its ends would be bent onto them.
    corners = [math.log10(roof) + end for roof in roofs for end in (x.low, x.high)]
    y = span(
        [*(math.log10(rate) for _, _, rate in drawn), *corners], BOTTOM, TOP, room=0.04, least=0.5
    )
    assert y is not None  # it holds the rates
    points = [
        marker(
            keys[one.backend, one.mode],
            x(intensity),
            y(rate),
            f"{one.case} {one.mode}, {one.backend}: {rate / 1e9:.3g} Gop/s, {one.fraction_of_floor:.0%} of the roof",
        )
        for one, intensity, rate in drawn
    ]
    return chart(title, X_LABEL, Y_LABEL, x, y, [*_roof(roofs, x, y), *points])


def _place(sample: KernelSamples) -> tuple[float, float]:
    """(operations per byte, operations per second)."""
    return sample.operations / sample.bytes_fused, sample.operations / min(sample.rounds)


def _roof(bandwidths: Sequence[float], x: LogScale, y: LogScale) -> list[str]:
    if not bandwidths:
        return []
    low, high = min(bandwidths), max(bandwidths)
    places = ((LEFT, high, x.low), (RIGHT, high, x.high), (RIGHT, low, x.high), (LEFT, low, x.low))
    sides = [
        f"{at} {y.at(math.log10(bandwidth) + intensity):.1f}" for at, bandwidth, intensity in places
    ]
    return [
        f'<path class="roof-band" d="M{"L".join(sides)}z"/>',
        f'<path class="roof" d="M{sides[0]}L{sides[1]}"/>',
        f'<text class="roof-name" x="{LEFT + 8}" y="{TOP + 12}">a copy runs at up to {high / 1e9:.3g} GB/s</text>',
    ]
