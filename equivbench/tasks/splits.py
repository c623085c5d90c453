"""The three splits of every data set, and the rule that puts a named unit of independence into one
of them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
"""In the order of an archive's ``split`` codes."""


def digest(text: str) -> int:
    """64 bits of the SHA-256 of ``text``: the source of every draw, order and seed of generated
    sets."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def draw(name: str) -> float:
    """A number in [0, 1) that is a pure function of the name of a unit of independence (a molecule,
    a cluster)."""
    return digest(f"split {name}") / 2**64


def split_of(name: str) -> str:
    """The split of the unit ``name``: test where ``draw(name) < 0.2``, validation where ``< 0.3``,
    else train."""
    u = draw(name)
    return "test" if u < 0.2 else "validation" if u < 0.3 else "train"


def rule(units: str, name: str) -> str:
    """:func:`split_of` for a card: ``units`` says what is split ("by molecule"), ``name`` what a
    unit is named by."""
    return (
        f"{units}: u = draw(name), the first 8 bytes (big-endian) of SHA-256('split ' + name) over 2^64, where name is {name}; "
        "test where u < 0.2, validation where 0.2 <= u < 0.3, else train"
    )


def samples_in(split: NDArray[np.uint8]) -> dict[str, int]:
    """Samples in each split; ``split`` [samples] are codes into ``SPLITS``."""
    return {name: int((split == code).sum()) for code, name in enumerate(SPLITS)}


def units_in(units: NDArray[Any], split: NDArray[np.uint8]) -> dict[str, int]:
    """Distinct ``units`` [samples] (molecules, clusters) in each split."""
    return {name: len(np.unique(units[split == code])) for code, name in enumerate(SPLITS)}


def without_samples(split: NDArray[np.uint8]) -> list[str]:
    """The splits that no sample is in."""
    return [name for name, size in samples_in(split).items() if size == 0]
