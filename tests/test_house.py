"""One word for each thing: no two classes of one name, no two value sets under one alias, and every
word of the glossary has the class that it names."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from pathlib import Path

import pytest
from source import ROOT, modules, tree

GLOSSARY = Path(__file__).parents[1] / "docs" / "glossary.md"
NAMED = re.findall(r"`(equivbench(?:\.\w+)+)`", GLOSSARY.read_text(encoding="utf-8"))


def test_no_two_classes_have_one_name() -> None:
    found = defaultdict(list)
    for name, file in modules().items():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(name)
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_no_alias_stands_for_two_things() -> None:
    found = defaultdict(set)
    for file in modules().values():
        for node in tree(file).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
                for target in node.targets:
                    if isinstance(target, ast.Name) and not target.id.isupper():
                        found[target.id].add(ast.unparse(node.value))
    assert {name: values for name, values in found.items() if len(values) > 1} == {}


@pytest.mark.parametrize("name", NAMED)
def test_what_the_glossary_names_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_every_file_begins_with_what_it_is_for() -> None:
    silent = [
        file.relative_to(ROOT).as_posix()
        for file in modules().values()
        if not (ast.get_docstring(tree(file)) or "").partition("\n\n")[0].rstrip().endswith(".")
    ]
    assert silent == []
