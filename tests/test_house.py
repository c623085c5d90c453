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


def _text_mode(call: ast.Call, name: str) -> bool:
    """Whether a call by this name reads or writes text."""
    keywords = {each.arg for each in call.keywords}
    if name in ("read_text", "write_text"):
        # Of resources the encoding is the first argument.
        return len(call.args) < (1 if name == "read_text" else 2)
    if name in ("run", "Popen", "check_output"):
        return bool(keywords & {"text", "universal_newlines"})
    modes = [
        each.value
        for each in [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]
    is_mode = [mode for mode in modes if re.fullmatch("[rwxabt+]+", mode)]
    return name == "open" and not any("b" in mode for mode in is_mode)


def test_no_text_is_read_or_written_in_the_encoding_of_the_locale() -> None:
    found = []
    for file in modules().values():
        for node in ast.walk(tree(file)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            name = called.rpartition(".")[2]
            others = called in ("os.open", "tarfile.open", "archive.open") or name == "_open"
            named = {each.arg for each in node.keywords} & {"encoding", None}
            if not others and not named and _text_mode(node, name):
                found.append(f"{file.relative_to(ROOT).as_posix()}:{node.lineno} {called}")
    assert found == []
