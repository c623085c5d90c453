"""Whether a run record is believed: it keeps all rules of the table, and what is unusual about it
is remarked; and the text of the rules that records are made under."""

from __future__ import annotations

from importlib.resources import files

from equivbench.records.consistency import CONSISTENCY
from equivbench.records.plausibility import PLAUSIBILITY, UNUSUAL
from equivbench.records.rule import Rule, broken_rules
from equivbench.records.schema import RULES_VERSION, RunRecord

RUN_RULES: tuple[Rule[RunRecord], ...] = (*CONSISTENCY, *PLAUSIBILITY)
"""What every record of a run must keep. The sentences come in this order."""


def problems(record: RunRecord) -> list[str]:
    """Why ``record`` cannot be right, one sentence each; empty if nothing contradicts itself, the
    device or the data."""
    return broken_rules(record, RUN_RULES)


def remarks(record: RunRecord) -> list[str]:
    """What is unusual about ``record`` without being wrong."""
    return [sentence for rule in UNUSUAL for sentence in rule.broken(record)]


def incomparable(record: RunRecord) -> str | None:
    """Why ``record`` must not be compared with records of this version's rules, or None."""
    if record.rules_version == RULES_VERSION:
        return None
    return f"rules version {record.rules_version} is not this equivbench's {RULES_VERSION}"


def rules_text() -> str:
    """The rules in Markdown; their first line states the version that records carry."""
    return files("equivbench.records").joinpath("rules.md").read_text(encoding="utf-8")
