"""Forged records: what can be looked up or worked out is refused, what cannot is remarked, and what
is left is known and counted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from forgeries import CLAIMS, MARKED, REFUSED, REMARKED
from forging import Change
from good_results import good_files
from hypothesis import given
from hypothesis import strategies as st
from spoil import set_at

from equivbench.records.consistency import CONSISTENCY
from equivbench.records.disturbed import disturbance
from equivbench.records.plausibility import PLAUSIBILITY, problems, remarks
from equivbench.records.rules import broken_rules
from equivbench.records.schema import RunRecord

GOOD = good_files()


@cache
def before(file: Path) -> dict[str, Any]:
    """What ``file`` holds as it is shipped; nobody changes it."""
    plain: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    return plain


def forged(file: Path, change: Change) -> RunRecord:
    # Read anew each time, which is quicker than a deep copy.
    plain: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    change(plain)
    assert plain != before(file), "the forgery changes something"
    return msgspec.convert(plain, RunRecord)


of_each_good_record = pytest.mark.parametrize(
    "file", GOOD, ids=lambda file: "-".join(file.parts[-4:-1])
)


@of_each_good_record
def test_every_forgery_is_refused(file: Path) -> None:
    passed = [name for name, change in REFUSED.items() if not problems(forged(file, change))]
    assert passed == []


@of_each_good_record
def test_what_a_disturbed_run_might_have_done_is_refused_or_makes_it_one(file: Path) -> None:
    for name, change in MARKED.items():
        record = forged(file, change)
        assert problems(record) or disturbance(record), name


@of_each_good_record
def test_what_cannot_be_ruled_out_is_remarked(file: Path) -> None:
    assert remarks(msgspec.json.decode(file.read_bytes(), type=RunRecord)) == []
    for name, change in REMARKED.items():
        record = forged(file, change)
        assert problems(record) == [], name
        assert remarks(record) != [], name


def test_what_is_claimed_is_known() -> None:
    """What no look at a record tells; `results audit` evaluates the weights for the first of
    them."""
    applicable = {
        name: change for name, change in CLAIMS.items() if not name.startswith("other energy")
    }
    for name, change in applicable.items():
        record = forged(GOOD[0], change)
        assert (problems(record), remarks(record)) == ([], []), name


def test_rules_of_a_record_alone_find_less() -> None:
    """What the registry, the data and the command tell is worth having: without them most
    forgeries pass."""
    alone = (*CONSISTENCY, *PLAUSIBILITY)
    found = [bool(broken_rules(forged(GOOD[1], change), alone)) for change in REFUSED.values()]
    assert sum(found) < len(found) / 2


CLAIMED = re.compile(
    # Times, rates and memory, within the bounds that other rules set.
    r"(trace|rungs)\.\d+\.train_seconds|throughput\.step_seconds\.\w+|inference\..*"
    r"|memory\.peak_bytes|machine_share\.\w+|restarts"
    # Losses of which nothing else follows: weights give them again, at the end.
    r"|.*\.objective|.*\.errors\.\w+|final\.floor|out_of_distribution\..*|weights_sha256"
    # The code and its surroundings, what was said, and what only other records tell.
    r"|command|contest|unit|attempts\.\d+\.started|git\.(commit|tree)|environment\.(cpu|python|packages\..*)|model\.symmetry_reason|reasons\..*"
)
"""Single values that a record is trusted for."""


def spoilt(value: Any) -> Any:
    """Another value of the same type, 3% off where it is a number."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return 1.03 * value + 1e-9 if value else 0.01
        case str():
            return f"{value[:-1]}{'8' if value[-1:] == '7' else '7'}"
        case list():
            return [spoilt(each) for each in value]
        case _:
            return "lost"


def places(value: Any) -> Iterator[tuple[str, Callable[[Any], None], Any]]:
    """(path, how to set it, value) of every value; a list of numbers is one."""
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(item, dict) or (
            isinstance(item, list) and item and isinstance(item[0], dict)
        ):
            yield from ((f"{key}.{path}", put, each) for path, put, each in places(item))
        else:
            yield str(key), partial(value.__setitem__, key), item


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5], ids=["flow", "voxel"])
def test_every_single_value_that_is_not_a_claim_is_held_against_something(number: int) -> None:
    plain: dict[str, Any] = json.loads(GOOD[number].read_bytes())
    passed, looked_at = [], 0
    for path, put, value in places(plain):
        # A trace has many points alike.
        if CLAIMED.fullmatch(path) or re.match(r"trace\.[2-6]\.|rungs\.[1-3]\.", path):
            continue
        looked_at += 1
        put(spoilt(value))
        try:
            record = msgspec.convert(plain, RunRecord)
        except msgspec.ValidationError:
            continue  # the schema refuses it
        finally:
            put(value)
        other_version = path in ("schema_version", "rules_version")  # said before any rule
        if not (other_version or problems(record) or remarks(record)):
            passed.append(path)
    assert looked_at > 200
    assert passed == []


NUMBERS = st.sampled_from((-(10**29), -1, 0, 1, 2, 10**29))
ANYTHING = {
    bool: st.booleans(),
    int: NUMBERS,
    float: NUMBERS.map(float) | st.floats(-1e29, 1e29),
    str: st.text(max_size=30)
    | st.sampled_from(("0", "-", "1e999", "inf", "equivbench run", "equivbench run --extend nan")),
}


@given(st.data())
def test_no_value_makes_validation_itself_fail(data: st.DataObject) -> None:
    plain: dict[str, Any] = json.loads(GOOD[5].read_bytes())
    found = list(places(plain))
    for _ in range(data.draw(st.integers(1, 4))):
        path, put, value = data.draw(st.sampled_from(found))
        kind = type(value[0]) if isinstance(value, list) and value else type(value)
        one = data.draw(ANYTHING.get(kind, st.none()))
        put([one, *value[1:]] if isinstance(value, list) and value else one)
    for path, put in data.draw(st.sampled_from(COMPOUND)):
        set_at(plain, path, put)
    try:
        record = msgspec.convert(plain, RunRecord)
    except msgspec.ValidationError:
        return
    assert all(isinstance(each, str) for each in (*problems(record), *remarks(record)))


COMPOUND: tuple[tuple[tuple[str, Any], ...], ...] = (
    (),
    (("budget.extends", 30.0),),
    (("budget.extends", -1.0), ("budget.limit", 1e20)),
    (("budget.kind", "steps"), ("budget.limit", 2.5)),
    (("budget.kind", "samples"), ("recipe.batch_size", 0)),
    (("variant", {"sweep": "size", "value": "1e9"}),),
    (("variant", {"sweep": "data", "value": "0.5"}),),
    (("variant", {"sweep": "optimizer"}),),
    (("command", "equivbench analyze sweep voxel/octahedral --over data --values 0.5"),),
    (("command", "equivbench run voxel/octahedral --rungs 99999999999"),),
    (("command", "equivbench run voxel/octahedral --seeds 0-99999999999"),),
    (("command", "equivbench run voxel/octahedral --extend 1e300"),),
    (("dataset.sizes", {}),),
    (("preset", "paper"),),
    (("reasons", {".": "x", "trace..": "y", "rungs.99": "z", "": "w"}),),
)
"""Changes that reach further into the rules than one value does."""
