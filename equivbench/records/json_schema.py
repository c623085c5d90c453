"""The JSON Schema of run records, generated from the types of ``schema.py`` and shipped as
``schema.json``.

``python -m equivbench.records.json_schema`` writes the shipped file again after a change to the
types.
"""

from __future__ import annotations

import ast
import inspect
import json
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from equivbench.records import schema as types
from equivbench.records.files import write_atomically
from equivbench.records.schema import SCHEMA_VERSION, RunRecord


def generated_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) as the types have it now."""
    schema = msgspec.json.schema(RunRecord)
    described = _field_docstrings()
    for name, definition in schema["$defs"].items():
        # Python 3.13 takes the indentation out of docstrings, earlier versions leave it in.
        definition["description"] = " ".join(definition["description"].split())
        for field, text in described[name].items():
            definition["properties"][field]["description"] = text
    # A reader must refuse a record of another version instead of misreading it.
    schema["$defs"]["RunRecord"]["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"equivbench run record, schema version {SCHEMA_VERSION}",
        **schema,
    }


def _field_docstrings() -> dict[str, dict[str, str]]:
    """The docstrings below the fields of the record's types, by type and field; msgspec reads those
    of types only."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(types)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields = found.setdefault(node.name, {})
        for field, below in pairwise(node.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                fields[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).split())
    return found


def generated_text() -> str:
    """The schema as the shipped file has it, byte for byte."""
    return json.dumps(generated_schema(), indent=1, ensure_ascii=False) + "\n"


def shipped_text() -> str:
    """The shipped ``schema.json``."""
    return files("equivbench.records").joinpath("schema.json").read_text(encoding="utf-8")


def rules_text() -> str:
    """The rules in Markdown; their first line states the version that records carry."""
    return files("equivbench.records").joinpath("rules.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    write_atomically(Path(__file__).with_name("schema.json"), generated_text().encode())
