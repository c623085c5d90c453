"""``constraints.txt`` has the version of everything that an installation for development brings."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
_OF_GPUS = ("cuda-", "nvidia-", "triton")
"""What torch's own index of CPUs does not bring; its metadata names their versions."""


def pinned() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}


def brought(lines: Iterable[str]) -> set[str]:
    """All packages that the requirements ``lines`` bring, as far as what is installed tells."""
    found: set[str] = set()
    done: set[tuple[str, frozenset[str]]] = set()
    left = [(Requirement(line), frozenset[str]()) for line in lines]
    while left:
        one, extras = left.pop()
        asked = [{"extra": extra} for extra in ("", *extras)]
        name, wanted = canonicalize_name(one.name), frozenset(one.extras)
        if one.marker is not None and not any(map(one.marker.evaluate, asked)):
            continue
        if (name, wanted) in done:
            continue
        done.add((name, wanted))
        if name == PROJECT["name"]:
            further = [line for extra in wanted for line in EXTRAS[extra]]
        else:
            found.add(name)
            try:
                further = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
        left += [(Requirement(line), wanted) for line in further]
    return found


def test_all_that_is_installed_for_development_has_a_version() -> None:
    names = brought([*PROJECT["dependencies"], *EXTRAS["dev"]])
    assert len(names) > 100
    assert {name for name in names - pinned() if not name.startswith(_OF_GPUS)} == set()
