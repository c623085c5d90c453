"""The one table of the package: typed cells under named columns, and one renderer a format.

Whoever makes a table says what its columns are and fills in values; the renderers of
:mod:`equivbench.report.render` decide how they look and escape foreign text. An example::

    table = Table(
        "Efficiency gap",
        columns=(
            Column("pair", key=True),
            Column("data", key=True, show="differs"),
            Column("total", kind="number", unit="eV"),
            Column("explained", kind="percent"),
        ),
        rows=[("forcefield/vector", "a quarter", Quantity(0.1, 0.09, 0.11), 0.93)],
        notes=["explained: 1 - total / baseline"],
    )
    print_table(table, json=as_json)  # of equivbench.cli.output
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from equivbench.gap.intervals import Quantity

ColumnKind = Literal["text", "number", "percent", "change", "seconds"]
"""How the numbers of a column are written; ``seconds`` chooses the unit that fits each cell."""


class IndistinguishableRowsWarning(UserWarning):
    """Two rows of a table agree in all columns that tell rows apart: an error of the table's maker
    (an exception while tests run)."""


@dataclass(frozen=True)
class Missing:
    """A value that is not there. ``reason`` (``not reached``) is short enough to be shown in its
    place; without one a dash is."""

    reason: str = ""


@dataclass(frozen=True)
class Amount:
    """A number with a unit of its own, for columns whose rows measure different things."""

    value: float
    unit: str


Cell: TypeAlias = "str | int | float | bool | Quantity | Missing | Amount | tuple[str, ...] | None"
"""What a cell may hold. A tuple holds several texts; None is a value that was not measured."""


@dataclass(frozen=True)
class Column:
    """What stands in a column and how it is written.

    Parameters
    ----------
    name
        The name of the column in csv and json, and its heading unless ``heading`` is given.
    kind
        How numbers are written: ``number``, ``percent`` (of a fraction), ``change`` (a fraction as
        a percentage with its sign) or ``seconds``. Integers are written in full whatever the
        kind.
    unit
        Written in brackets behind the heading.
    digits
        Significant digits.
    key
        Whether the column belongs to what tells rows apart. No two rows may agree in all of
        these.
    show
        ``always``; ``filled``: only if a row has something in it; ``differs``: only if rows differ
        in it; ``needed``: only if rows that agree in all other shown keys differ in it; ``data``:
        never. csv, json and data frames always have every column.
    interval
        Whether a quantity is written with its interval.
    wraps
        Whether its texts are sentences, which a narrow terminal may break between words. Other
        cells are never broken: they may be copied.
    spare
        Whether a terminal that is too narrow for all columns leaves it out, and says so; of
        several those on the right go first.
    """

    name: str
    kind: ColumnKind = "text"
    heading: str = ""
    unit: str = ""
    digits: int = 3
    key: bool = False
    show: Literal["always", "filled", "differs", "needed", "data"] = "always"
    interval: bool = True
    wraps: bool = False
    spare: bool = False

    @property
    def title(self) -> str:
        """The heading with the unit."""
        heading = self.heading or self.name
        return f"{heading} [{self.unit}]" if self.unit and self.unit != "1" else heading


@dataclass(frozen=True)
class Table:
    """Rows of typed cells under ``columns``.

    ``caption`` says in a sentence what all rows share and what the columns mean, ``notes`` are
    sentences to print below. Raises ``ValueError`` for a row of another length than the columns,
    and warns (:class:`IndistinguishableRowsWarning`) if a reader cannot tell two rows apart.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row of table {self.title!r} has {len(row)} cells for "
                    f"{len(self.columns)} columns: {row}"
                )
        keys = [place for place, column in enumerate(self.columns) if column.key]
        seen: dict[Hashable, int] = {}
        for place, row in enumerate(self.rows if keys else ()):
            first = seen.setdefault(tuple(row[key] for key in keys), place)
            if first != place:
                warnings.warn(
                    f"rows {first + 1} and {place + 1} of the table "
                    f"{self.title or self.columns[0].title!r} look the same: "
                    "they agree in every column that tells rows apart",
                    IndistinguishableRowsWarning,
                    stacklevel=3,
                )
                break

    def shown(self) -> Table:
        """The table with the columns that a reader sees."""
        chosen = {place for place in range(len(self.columns)) if self._is_shown(place)}
        for place, column in enumerate(self.columns):
            if column.show == "needed" and self._tells_apart(place, chosen):
                chosen.add(place)
        return self._only(sorted(chosen))

    def select(self, names: Sequence[str]) -> Table:
        """The table with the columns called ``names``, in that order."""
        places = {column.name: place for place, column in enumerate(self.columns)}
        return self._only([places[name] for name in names])

    def _only(self, places: Sequence[int]) -> Table:
        columns = [self.columns[place] for place in places]
        return replace(
            self, columns=columns, rows=[[row[place] for place in places] for row in self.rows]
        )

    def _is_shown(self, place: int) -> bool:
        cells = {row[place] for row in self.rows}
        match self.columns[place].show:
            case "filled":
                return any(cell not in ("", None) for cell in cells)
            case "differs":
                return len(cells) > 1
            case show:
                return show == "always"

    def _tells_apart(self, place: int, chosen: set[int]) -> bool:
        """Whether rows that agree in the keys among ``chosen`` differ in column ``place``."""
        keys = [key for key in sorted(chosen) if self.columns[key].key]
        first: dict[Hashable, Cell] = {}
        return any(
            first.setdefault(tuple(row[key] for key in keys), row[place]) != row[place]
            for row in self.rows
        )
