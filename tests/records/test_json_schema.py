"""The shipped JSON Schema says what the types say, and real records obey it."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from factories import make_record
from hypothesis import given
from hypothesis import strategies as st

from equivbench.errors import FailedError
from equivbench.records import json_schema
from equivbench.records.schema import RunRecord
from equivbench.records.store import decode_record

SHIPPED = json.loads(json_schema.shipped_text())
VALIDATOR = jsonschema.Draft202012Validator(SHIPPED)
REFERENCE = sorted((Path(__file__).parents[2] / "results").rglob("*.json"))


def test_shipped_schema_is_the_generated_one() -> None:
    assert json_schema.shipped_text() == json_schema.generated_text(), (
        "run `python -m equivbench.records.json_schema`"
    )


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SHIPPED)


def test_contract_fields_are_required() -> None:
    names = set(RunRecord.__struct_fields__)
    assert names - set(SHIPPED["$defs"]["RunRecord"]["required"]) == {
        *("baselines", "weights_sha256"),
        *("unit", "devices", "devices_per_arm", "beside", "attempts"),
    }


def test_record_is_valid() -> None:
    VALIDATOR.validate(msgspec.to_builtins(make_record()))


def shortened(value: Any) -> Any:
    """``value`` with the first three of each list of numbers, of all of which the schema says the
    same."""
    match value:
        case dict():
            return {name: shortened(each) for name, each in value.items()}
        case [int() | float(), *_]:
            return value[:3]
        case list():
            return [shortened(each) for each in value]
        case _:
            return value


@pytest.mark.parametrize("file", REFERENCE, ids=lambda file: str(file.name))
def test_reference_record_is_valid(file: Path) -> None:
    VALIDATOR.validate(shortened(json.loads(file.read_text())))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(deeper for key, item in items for deeper in _paths(item, (*path, key)))]


PLAIN = msgspec.to_builtins(make_record())
PATHS = [path for path in _paths(PLAIN) if path]
# Whole floats are left out: JSON Schema takes 1.0 for an integer, msgspec takes it for one only
# where it is an int field.
SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=3)
    | st.just(0.5)
    | st.just([])
    | st.just({})
)


@given(path=st.sampled_from(PATHS), value=SCALARS)
def test_reader_and_schema_accept_the_same(path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(PLAIN)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        decode_record(json.dumps(changed).encode(), "record")
        readable = True
    except FailedError:
        readable = False
    assert readable == VALIDATOR.is_valid(changed)


@given(path=st.sampled_from([path for path in PATHS if isinstance(path[-1], str)]))
def test_missing_field_is_refused_by_both_or_neither(path: tuple[Any, ...]) -> None:
    changed = copy.deepcopy(PLAIN)
    place = changed
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    try:
        decode_record(json.dumps(changed).encode(), "record")
        readable = True
    except FailedError:
        readable = False
    assert readable == VALIDATOR.is_valid(changed)
