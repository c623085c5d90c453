"""The files of one JSON object a line that may lie beside run records, and what makes a line of
each right. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from equivbench.records.files import Identified, merge_lines, read_lines
from equivbench.records.plausibility import date_problems
from equivbench.records.rule import Rule, broken_rules
from equivbench.records.schema import Environment


@runtime_checkable
class Line(Identified, Protocol):
    """What the struct of every line has."""

    schema_version: int
    created: str
    environment: Environment


L = TypeVar("L", bound=Line)


@dataclass(frozen=True)
class LineFile(Generic[L]):
    """One kind of file, ``results/<machine-key>/<name>``, with a line for each measurement."""

    name: str
    """File name, such as ``gradients.jsonl``."""
    kind: type[L]
    """The struct of a line."""
    what: str
    """What messages call a line, such as ``gradient analysis``."""
    schema_version: int
    rules: tuple[Rule[Any], ...]
    """What an honest line keeps, beyond the version and the date, which every kind is held to."""

    def read(self, path: Path) -> list[L]:
        """The lines of ``path``; raises ``FailedError`` naming file and line where it holds none
        or anything else."""
        return read_lines(path, self.kind, self.what)

    def keep(self, lines: Iterable[L], results: Path) -> list[Path]:
        """Add ``lines`` to the files of their machines below the folder ``results``, in place of
        earlier ones of the same identity, and return these files."""
        machines: dict[str, list[L]] = {}
        for line in lines:
            machines.setdefault(line.environment.machine_key, []).append(line)
        return [
            merge_lines(found, results / machine / self.name, self.read)
            for machine, found in machines.items()
        ]

    def problems_of(self, line: L) -> list[str]:
        """Why ``line`` cannot be right, one sentence each; empty for a line that can."""
        return broken_rules(line, (*self._common_rules(), *self.rules))

    def _common_rules(self) -> Iterator[Rule[L]]:
        def version(line: L) -> Iterator[str]:
            if line.schema_version != self.schema_version:
                yield (
                    f"schema version {line.schema_version}, "
                    f"this equivbench reads version {self.schema_version}"
                )

        def date(line: L) -> Iterator[str]:
            yield from date_problems(line.created)

        yield Rule("the schema version is the one that is read", self.kind, version)
        yield Rule("it was made when it can have been made", self.kind, date)
