"""`--fail-on METRIC:PERCENT`."""

from __future__ import annotations

import pytest

from equivbench.errors import UsageError
from equivbench.gate.metrics import DEFAULT, GATED, Thresholds


def test_named_metrics_have_their_own_threshold() -> None:
    parsed = Thresholds.parse(["seconds:10", "total:0.5%"], GATED)
    assert (parsed.of("seconds"), parsed.of("total"), parsed.of("share")) == (0.1, 0.005, DEFAULT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seconds",
        "seconds:",
        "seconds:x",
        "seconds:-1",
        "seconds:0",
        "seconds:nan",
        "seconds:inf",
    ],
)
def test_what_is_no_threshold_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        Thresholds.parse([text], GATED)


@pytest.mark.parametrize("metric", ["speed", "explained"])
def test_a_metric_that_is_not_gated_is_a_usage_error(metric: str) -> None:
    with pytest.raises(UsageError, match=metric):
        Thresholds.parse([f"{metric}:5"], GATED)
