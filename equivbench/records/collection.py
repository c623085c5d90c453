"""Run records as a list that notebooks show as a table."""

from __future__ import annotations

from typing import ClassVar

from equivbench.records.schema import RunRecord
from equivbench.tabular import Tabular


class RunRecords(Tabular, list[RunRecord]):
    """Run records in their order: a list, of which a notebook shows a table and pandas gets a
    frame. ``RunRecords(each for each in records if ...)`` is a part of them."""

    table_factory: ClassVar[str] = "equivbench.report.records:record_table"

    def __repr__(self) -> str:
        lines = ",\n ".join(map(repr, self))
        return f"[{lines}]"
