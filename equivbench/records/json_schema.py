"""The JSON Schema of run records, generated from the types of ``schema.py`` and shipped as
``schema.json``.

``python -m equivbench.records.json_schema`` writes the shipped file again after a change to the
types.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from equivbench.records.files import write_atomically
from equivbench.records.schema import SCHEMA_VERSION, RunRecord


def generated_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) as the types have it now."""
    schema = msgspec.json.schema(RunRecord)
    # A reader must refuse a record of another version instead of misreading it.
    schema["$defs"]["RunRecord"]["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"equivbench run record, schema version {SCHEMA_VERSION}",
        **schema,
    }


def generated_text() -> str:
    """The schema as the shipped file has it, byte for byte."""
    return json.dumps(generated_schema(), indent=1, ensure_ascii=False) + "\n"


def shipped_text() -> str:
    """The shipped ``schema.json``."""
    return files("equivbench.records").joinpath("schema.json").read_text(encoding="utf-8")


if __name__ == "__main__":
    write_atomically(Path(__file__).with_name("schema.json"), generated_text().encode())
