"""The rules text and the metrics carry the versions and declarations that the code relies on."""

import copy
import re
from typing import Any

import pytest

from equivbench.records.json_schema import rules_text
from equivbench.records.metrics import METRICS
from equivbench.records.rules import leaves, nulls, too_large
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


NESTED = {
    "a": 1.0,
    "b": {"c": None, "d": [1, 2.5, -3], "e": []},
    "f": [{"g": None, "h": "text"}, None, [0.5, None]],
    "i": {},
}


def test_everything_that_a_record_holds_has_its_path() -> None:
    assert dict(leaves(NESTED)) == {
        "a": 1.0,
        "b.c": None,
        "b.d": [1, 2.5, -3],
        "b.e": [],
        "f.0.g": None,
        "f.0.h": "text",
        "f.1": None,
        "f.2.0": 0.5,
        "f.2.1": None,
    }
    assert list(nulls(NESTED)) == ["b.c", "f.0.g", "f.1", "f.2.1"]
    assert list(nulls([[1.0, 2.0], {"a": None}])) == ["1.a"]


@pytest.mark.parametrize(
    ("where", "value"),
    [("a", -1e31), ("b.d", [1.0, 1e31]), ("f.0.h", 10**40), ("f.1", 2e30)],
)
def test_the_first_number_beyond_all_measures_is_named(where: str, value: object) -> None:
    assert too_large(NESTED) is None
    spoilt = copy.deepcopy(NESTED)
    *places, last = where.split(".")
    found: Any = spoilt
    for name in places:
        found = found[int(name) if isinstance(found, list) else name]
    found[int(last) if isinstance(found, list) else last] = value
    said = too_large(spoilt)
    assert said is not None
    assert said.startswith(f"{where} is beyond 1e+30")


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_no_metric_takes_a_value_that_is_no_number(metric) -> None:
    assert all(metric.problem(value) for value in (float("nan"), float("inf"), float("-inf")))


def test_sentinels_are_outside_the_range_of_a_time() -> None:
    assert METRICS["step_seconds"].problem(0.0)
    assert METRICS["samples_per_second"].problem(-1.0)
