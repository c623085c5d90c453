"""The type checker of tests: beartype, where annotations name what exists at run time."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from beartype import BeartypeConf, beartype

# An int may stand where a float is asked for, as type checkers see it.
_strictly = beartype(conf=BeartypeConf(is_pep484_tower=True))


UNCHECKED = ("equivbench.records.line_files",)
"""Modules with a type bound to a protocol with attributes, which nothing can check at run time."""


@cache
def _names_for_type_checkers(module: str) -> frozenset[str]:
    """The names that a module imports behind TYPE_CHECKING, so that it need not load torch."""
    file = sys.modules[module].__file__
    assert file is not None
    found = set()
    for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for each in ast.walk(node):
                if isinstance(each, ast.alias):
                    found.add((each.asname or each.name).partition(".")[0])
    return frozenset(found)


def checked(function: Any) -> Any:
    """``function`` with every call checked against its annotations, where these can be read."""
    if function.__module__ in UNCHECKED:
        return function
    annotations = getattr(function, "__annotations__", {}).values()
    words = {word for each in annotations for word in re.findall(r"\w+", str(each))}
    if words & _names_for_type_checkers(function.__module__):
        return function
    checking: Callable[..., Any] = _strictly(function)
    return checking
