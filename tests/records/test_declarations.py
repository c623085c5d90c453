"""What is declared of a run is worked out once for records that name the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from good_results import good_files

from equivbench.records.declared import declaration_of
from equivbench.records.schema import RunRecord
from equivbench.registry import DATASETS, MODELS, PAIRS, TASKS, Registry

FILE = good_files()[0]


def record_of(**changes: str) -> RunRecord:
    record = msgspec.json.decode(FILE.read_bytes(), type=RunRecord)
    return msgspec.structs.replace(record, **changes)


def test_records_that_name_the_same_share_it() -> None:
    declared = declaration_of(record_of())
    assert declared is not None
    assert declaration_of(record_of()) is declared
    other = declaration_of(record_of(preset="dev"))
    assert other is not None
    assert other.preset == declared.pair.presets["dev"]
    other = declaration_of(record_of(arm="equivariant"))
    assert other is not None
    assert other.arm.name == "equivariant"


@pytest.mark.parametrize("registry", [PAIRS, MODELS, TASKS, DATASETS], ids=lambda each: each.kind)
def test_it_is_worked_out_anew_after_a_change_of_what_is_registered(
    registry: Registry[Any],
) -> None:
    before = declaration_of(record_of())
    registry.restore(registry.snapshot())
    after = declaration_of(record_of())
    assert after is not before
    assert after == before
