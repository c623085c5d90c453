"""`--fail-on METRIC:PERCENT`."""

from __future__ import annotations

import pytest

from equivbench.errors import UsageError
from equivbench.gate.metrics import parse_thresholds


def test_named_metrics_have_their_own_threshold() -> None:
    assert parse_thresholds(["seconds:10", "total:0.5%"]) == {"seconds": 0.1, "total": 0.005}


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
        parse_thresholds([text])


@pytest.mark.parametrize("metric", ["speed", "explained"])
def test_a_metric_that_is_not_gated_is_a_usage_error(metric: str) -> None:
    with pytest.raises(UsageError, match=metric):
        parse_thresholds([f"{metric}:5"])
