"""Budgets: what parses, what is refused with which sentence."""

import pytest

from equivbench.budget import Budget
from equivbench.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("60s", "seconds", 60),
        ("5min", "seconds", 300),
        ("0.5h", "seconds", 1800),
        (".5 h", "seconds", 1800),
        ("2000steps", "steps", 2000),
        ("1e6samples", "samples", 1e6),
        ("720h", "seconds", 30 * 24 * 3600),
    ],
)
def test_parses_the_forms_of_the_contract(text, kind, limit):
    assert Budget.parse(text) == Budget(kind, limit)


@pytest.mark.parametrize(
    "text", ["60s", "0.1s", "5min", "0.3333333333h", "2000steps", "123456789samples"]
)
def test_text_is_read_back_as_the_same_budget(text):
    assert Budget.parse(Budget.parse(text).text) == Budget.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "60",
            "s",
            "sixty s",
            "60 sec",
            "60s60s",
            "1_0s",
            "--5s",
            "5m",
            "1e",
            "e5s",
        ),  # unreadable
        *(
            "0s",
            "-1s",
            "0steps",
            "-0.0s",
            "nans",
            "nan s",
            "infs",
            "-inf s",
            "1e400s",
        ),  # not positive and finite
        *("721h", "1e10s", "1e10steps", "1e13samples"),  # above the largest
        *("2.5steps", "0.5samples"),  # not whole
    ],
)
def test_absurd_budgets_are_usage_errors_of_one_line(text):
    with pytest.raises(UsageError) as caught:
        Budget.parse(text)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_times_scales_and_rounds_counts_up():
    assert Budget.parse("60s").times(1.5) == Budget("seconds", 90)
    assert Budget.parse("5steps").times(1.5) == Budget("steps", 8)
    with pytest.raises(UsageError):
        Budget.parse("60s").times(float("inf"))
    with pytest.raises(UsageError):
        Budget.parse("60steps").times(float("nan"))
