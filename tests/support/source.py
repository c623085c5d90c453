"""The package as its own source tells: modules, what each imports, what each defines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import equivbench

ROOT = Path(equivbench.__file__).parent


@cache
def modules() -> dict[str, Path]:
    """The file of each module, by the module's dotted name."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = ("equivbench", *file.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def tree(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, behind TYPE_CHECKING too."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str | None:
    """The module that an imported name lies in, or None if it is another package's."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


def circles() -> list[list[str]]:
    """Modules that import each other, directly or over others, for types included.

    The package's front door, which gathers all others, is left out.
    """
    arrows = {
        name: {module_of(each) for each in imported(file)} - {None, name, "equivbench"}
        for name, file in modules().items()
        if name != "equivbench"
    }
    # What imports nothing that is left, or is imported by nothing that is left, is in no circle.
    while True:
        targets = set().union(*arrows.values()) if arrows else set()
        kept = {name: to & arrows.keys() for name, to in arrows.items() if to and name in targets}
        if kept == arrows:
            return sorted([name, *sorted(filter(None, to))] for name, to in arrows.items())
        arrows = kept
