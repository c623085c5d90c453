"""The text of the rules, versioned together with the records."""

from __future__ import annotations

from importlib.resources import files


def rules_text() -> str:
    """The rules in Markdown; their first line states the version that records carry."""
    return files("equivbench.records").joinpath("rules.md").read_text(encoding="utf-8")
