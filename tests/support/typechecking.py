"""The type checker of tests: beartype, where annotations name what exists at run time; jaxtyping
where they state shapes and dtypes."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any

import jaxtyping
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
    if _words(function) & _names_for_type_checkers(function.__module__):
        return function
    checking: Callable[..., Any] = _strictly(function)
    return checking


def _words(function: Any) -> set[str]:
    annotations = getattr(function, "__annotations__", {}).values()
    return {word for each in annotations for word in re.findall(r"\w+", str(each))}


_with_shapes: Any = jaxtyping.jaxtyped


def _jaxtyped(function: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """``jaxtyping.jaxtyped``, without its costs (three calls and the names of axes kept for each)
    for a function whose annotations state no shape."""
    if function is None:
        return partial(_jaxtyped, typechecker=typechecker)
    if inspect.isclass(function):
        initialise = getattr(function, "__init__", None)
        if dataclasses.is_dataclass(function) and not hasattr(initialise, "__wrapped__"):
            setattr(function, "__init__", _jaxtyped(initialise, typechecker=typechecker))  # noqa: B010
        return function
    known = getattr(function, "__globals__", {})
    if any(getattr(known.get(word), "__module__", "") == "jaxtyping" for word in _words(function)):
        return _with_shapes(function, typechecker=typechecker)
    checking = typechecker(function)
    if checking is function:
        return function

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        disabled = jaxtyping.config.jaxtyping_disable
        return (function if disabled else checking)(*args, **options)

    return call


def check_calls(*packages: str) -> None:
    """Check the types, and the shapes and dtypes that annotations promise, at every call into
    ``packages``, which are yet to be imported."""
    # What the import hook decorates every function with.
    jaxtyping.jaxtyped = _jaxtyped  # type: ignore[assignment]
    jaxtyping.install_import_hook(packages, "typechecking.checked")
