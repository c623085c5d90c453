"""Forged records: what can be looked up or worked out is refused, what cannot is remarked, and what
is left is known and counted."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from forgeries import CLAIMS, REFUSED, REMARKED, Change
from good_results import good_files

from equivbench.records.consistency import CONSISTENCY
from equivbench.records.plausibility import PLAUSIBILITY, problems, remarks
from equivbench.records.rules import broken_rules
from equivbench.records.schema import RunRecord

GOOD = good_files()


def forged(file: Path, change: Change) -> RunRecord:
    plain: dict[str, Any] = json.loads(file.read_bytes())
    before = copy.deepcopy(plain)
    change(plain)
    assert plain != before, "the forgery changes something"
    return msgspec.convert(plain, RunRecord)


@pytest.mark.parametrize("file", GOOD, ids=lambda file: "-".join(file.parts[-4:-1]))
def test_every_forgery_is_refused(file: Path) -> None:
    assert [name for name, change in REFUSED.items() if not problems(forged(file, change))] == []


@pytest.mark.parametrize("file", GOOD, ids=lambda file: "-".join(file.parts[-4:-1]))
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
