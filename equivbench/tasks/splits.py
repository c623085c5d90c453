"""The three splits of every data set, and the rule that puts a named unit of independence into one of them."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "validation", "test")
"""In the order of an archive's ``split`` codes."""


def draw(name: str) -> float:
    """A number in [0, 1) that is a pure function of the name of a unit of independence (a molecule, a cluster)."""
    return int.from_bytes(hashlib.sha256(f"split {name}".encode()).digest()[:8], "big") / 2**64


def split_of(name: str) -> str:
    """The split of the unit ``name``: test where ``draw(name) < 0.2``, validation where ``< 0.3``, else train."""
    u = draw(name)
    return "test" if u < 0.2 else "validation" if u < 0.3 else "train"
