"""The charts' axes and marks: what is drawn stands where its number says, and what cannot be drawn
is left out."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from toy_samples import kernel_samples

from equivbench.gap.intervals import Quantity
from equivbench.records.roofline import Bound, Roofline
from equivbench.report.html.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TIMES,
    TOP,
    Key,
    LogScale,
    Point,
    Series,
    backend_keys,
    bar,
    label,
    line_chart,
    log_scale,
    ratio_scale,
    roofline,
)
from equivbench.report.text import printable

KEY = Key(0, "disc", "solid")
PIXEL = 0.051
"""Coordinates are written to a tenth of a pixel."""
positive = st.floats(1e-300, 1e300)


def described(text: str) -> float:
    """The number that an axis' label stands for."""
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    power = re.fullmatch(rf"(?:([\d.]+){TIMES})?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
    if power is None:
        return math.log10(float(text.replace(",", "")))
    return math.log10(float(power[1] or 1)) + int(power[2].translate(digits))


@given(values=st.lists(positive, min_size=1, max_size=8), at_most=st.integers(3, 8))
def test_ticks_lie_on_the_axis_where_their_labels_say(values: list[float], at_most: int) -> None:
    scale = log_scale(values, 10.0, 410.0)
    assert scale is not None
    ticks = scale.ticks(at_most)
    assert len(ticks) <= at_most
    assert [at for at, _ in ticks] == sorted({at for at, _ in ticks})
    for at, name in ticks:
        # A label has four digits, so its logarithm is within 5e-4 / ln 10 of the tick's; the axis
        # is 400 pixels long.
        assert scale.at(described(name)) == pytest.approx(
            at, abs=400 / (scale.high - scale.low) * 2.2e-4 + 1e-6
        )


@given(low=st.floats(-250, 250), decades=st.floats(0.1, 40))
def test_every_span_has_ticks_to_read_it_by(low: float, decades: float) -> None:
    # At least two, for a scale needs two marks.
    assert len(LogScale(low, low + decades, 0.0, 1.0).ticks(6)) >= 2


@given(values=st.lists(positive, min_size=2, max_size=8))
def test_the_axis_holds_its_values_in_order(values: list[float]) -> None:
    scale = log_scale(values, LEFT, RIGHT)
    assert scale is not None
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert LEFT <= places[0] <= places[-1] <= RIGHT


def test_an_axis_needs_a_positive_finite_value() -> None:
    assert log_scale([0.0, -1.0, math.inf, math.nan], 0.0, 1.0) is None


def test_labels_are_plain_where_a_reader_expects_it() -> None:
    assert [label(m, e) for m, e in ((5.0, -2), (1.0, 0), (2.0, 3), (1.0, -6), (2.5, 7))] == [
        "0.05",
        "1",
        "2,000",
        "10⁻⁶",
        f"2.5{TIMES}10⁷",
    ]


def test_a_power_law_is_a_straight_line_with_a_mark_for_each_point() -> None:
    points = tuple(Point(10.0**k, 10.0 ** (-2 * k)) for k in range(5))
    chart = str(line_chart("t", "x", "y", [Series("s", KEY, points)]))
    line = re.search(r'class="line[^>]*d="M([^"]+)"', chart)
    assert line is not None
    at = [tuple(map(float, pair.split())) for pair in line[1].split("L")]
    slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(at)]
    # Each coordinate is rounded to a tenth of a pixel, and neighbours are about 85 apart along x.
    assert slopes == pytest.approx([slopes[0]] * 4, abs=4 * PIXEL / 80)
    assert chart.count("<title>") == 5


@pytest.mark.parametrize(("line", "marks"), [(True, False), (False, True)])
def test_a_law_is_a_line_alone_and_what_was_measured_is_marks_alone(
    line: bool, marks: bool
) -> None:
    points = tuple(Point(x, 1 / x) for x in (1.0, 2.0, 4.0))
    chart = line_chart("t", "x", "y", [Series("s", KEY, points, line=line, marks=marks)])
    assert chart is not None
    assert chart.count('class="line') == line
    assert chart.count('class="mark') == 3 * marks


def test_points_that_a_logarithm_cannot_show_are_left_out() -> None:
    series = Series(
        "s", KEY, (Point(0.0, 1.0), Point(1.0, 0.0), Point(2.0, -1e-9), Point(3.0, 0.5))
    )
    assert str(line_chart("t", "x", "y", [series])).count("<title>") == 1
    assert line_chart("t", "x", "y", [Series("s", KEY, (Point(1.0, 0.0),))]) is None
    assert line_chart("t", "x", "y", []) is None


def test_what_lies_far_below_runs_along_an_axis_that_says_so() -> None:
    high = Series("high", KEY, (Point(1.0, 0.1), Point(10.0, 0.01)))
    low = Series("low", KEY, (Point(1.0, 1e-12), Point(10.0, 1e-13)))
    limited = str(line_chart("t", "x", "y", [high, low], decades=4))
    assert f" {float(BOTTOM)}" in limited
    assert "below it" in limited
    assert "below it" not in str(line_chart("t", "x", "y", [high, low]))


def test_a_band_needs_an_interval_at_two_points() -> None:
    def chart(*points: Point) -> str:
        return str(line_chart("t", "x", "y", [Series("s", KEY, points)]))

    assert 'class="band' in chart(Point(1, 1, 0.5, 2), Point(2, 1, 0.5, 2))
    assert 'class="band' not in chart(Point(1, 1, 0.5, 2), Point(2, 1))


@given(name=st.text())
def test_names_in_a_chart_are_text(name: str) -> None:
    def elements(name: str) -> list[str]:
        chart = str(line_chart(name, name, name, [Series(name, KEY, (Point(1.0, 1.0),))]))
        assert str(escape(printable(name))) in chart
        return re.findall(r"<[^\s>]*", chart)

    assert elements(name) == elements("plain")


@given(value=positive, low=positive, high=positive)
def test_a_whisker_spans_its_interval_and_the_dot_its_value(
    value: float, low: float, high: float
) -> None:
    low, value, high = sorted((low, value, high))
    quantity = Quantity(value, low, high)
    scale = ratio_scale([quantity])
    drawn = str(bar(quantity, scale, lead=""))
    whisker = re.search(r'class="whisker" d="M([\d.]+) \d+H([\d.]+)', drawn)
    dot = re.search(r'cx="([\d.]+)"', drawn)
    assert whisker is not None
    assert dot is not None
    assert (float(whisker[1]), float(dot[1]), float(whisker[2])) == pytest.approx(
        tuple(map(scale, (low, value, high))), abs=PIXEL
    )


def test_bounds_and_open_ends_point_outwards() -> None:
    scale = ratio_scale([Quantity(2.0)])
    assert 'class="bound"' in bar(Quantity(2.0, None, None, "above"), scale, lead="")
    assert 'class="bound"' in bar(Quantity(0.5, None, None, "below"), scale, lead="")
    assert str(bar(Quantity(1.0, None, 2.0), scale, lead="")).count("L") == 2  # one arrow head
    assert "whisker" not in bar(Quantity(1.0), scale, lead="")
    assert "dot" not in bar(Quantity(), scale, lead="")  # nothing measured, nothing drawn


def test_the_roof_is_the_bandwidth_times_the_intensity() -> None:
    # One sample on the roof, at 8 operations a byte, and one at a tenth of it.
    on = kernel_samples([1.0], operations=8e9, bytes_fused=1e9, bandwidth=1e9, backend="on")
    under = kernel_samples([10.0], operations=8e9, bytes_fused=1e9, bandwidth=1e9, backend="under")
    keys = backend_keys([on, under])
    drawn = str(roofline("t", [on, under], keys))
    roof = re.search(r'class="roof" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawn)
    marks = [
        re.search(r"M([\d.]+) ([\d.]+)a([\d.]+)", mark)
        for mark in re.findall(r'class="mark[^>]*>', drawn)
    ]
    assert roof is not None
    x0, y0, x1, y1 = map(float, roof.groups())
    for mark, above in zip(marks, (True, False), strict=True):
        assert mark is not None
        x, y = float(mark[1]) + float(mark[3]), float(mark[2])
        on_roof = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
        # Four coordinates rounded to a tenth of a pixel.
        assert (y == pytest.approx(on_roof, abs=4 * PIXEL)) is above
        assert TOP <= y <= BOTTOM


def test_each_part_of_the_memory_has_a_roof_up_to_arithmetic() -> None:
    fast, slow, top = (
        Bound(name="L3 cache bandwidth", amount=5e8, rate=8e9, size=1e6),
        Bound(name="memory bandwidth", amount=5e8, rate=1e9, size=1e9),
        Bound(name="arithmetic", amount=8e9, rate=3.2e10),
    )
    shape = Roofline(
        bytes_read=1e9, bytes_written=0.0, bounds=[slow, fast, top], binding=slow.name, fraction=0.5
    )
    sample = kernel_samples([1.0], operations=8e9, bytes_fused=1e9, roofline=shape)
    drawn = str(roofline("t", [sample], backend_keys([sample])))
    lines = [
        [tuple(map(float, corner.split())) for corner in path.split("L")]
        for path in re.findall(r'class="roof" d="M([^"]+)"', drawn)
    ]
    assert re.findall(r"<title>([^<]* GB/s)</title>", drawn) == [
        "L3 cache bandwidth 8.00 GB/s",
        "memory bandwidth 1.00 GB/s",
    ]
    cache, memory = lines
    # The cache's meets arithmetic at 4 operations a byte, to the left of the sample's 8; that of
    # memory at 32, beyond the axis.
    assert len(cache) == 3
    assert cache[1][1] == cache[2][1] < cache[0][1]
    assert len(memory) == 2
    assert memory[0][1] > memory[1][1] > cache[2][1]
    assert "50% of memory bandwidth" in drawn


def test_samples_of_before_are_drawn_beside_the_copy_they_were_held_against() -> None:
    sample = kernel_samples([1.0], operations=8e9, bytes_fused=1e9, bandwidth=1e9, roofline=None)
    drawn = str(roofline("t", [sample], backend_keys([sample])))
    assert "a large copy (old roofline) 1.00 GB/s" in drawn
    assert "% of" not in drawn


def test_a_roofline_needs_operations_and_bytes() -> None:
    sample = kernel_samples([1.0], operations=0.0)
    assert roofline("t", [sample], backend_keys([sample])) is None
