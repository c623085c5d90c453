"""A number of things in a sentence: ``1 seed``, ``3 seeds``."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """``count`` with its ``noun``, in the ``plural`` (by default with an ``s``) unless it is 1."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
