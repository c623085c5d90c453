"""The rules text and the metrics carry the versions and declarations that the code relies on."""

import re

import pytest

from equivbench.records.json_schema import rules_text
from equivbench.records.metrics import METRICS
from equivbench.records.schema import RULES_VERSION


def test_heading_states_the_version_of_the_records() -> None:
    assert rules_text().splitlines()[0] == f"# Rules of equivbench, version {RULES_VERSION}"


def test_rules_answer_what_they_are_asked() -> None:
    headings = " ".join(re.findall(r"^## \d+\. (.*)$", rules_text(), flags=re.MULTILINE))
    for question in (
        "on the clock",
        "may be tuned",
        "pair is fair",
        "target and a lead",
        "record must hold",
        "incomparable",
    ):
        assert question in headings


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_no_metric_takes_a_value_that_is_no_number(metric) -> None:
    assert all(metric.problem(value) for value in (float("nan"), float("inf"), float("-inf")))


def test_sentinels_are_outside_the_range_of_a_time() -> None:
    assert METRICS["step_seconds"].problem(0.0)
    assert METRICS["samples_per_second"].problem(-1.0)
