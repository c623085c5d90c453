"""A result that is also a table: what a notebook shows of it, and what pandas gets.

How a result is laid out is the business of :mod:`equivbench.report`, which lies above all results.
So a class names the function that makes its table, as a declaration names its factory, and the
function is looked up when somebody looks at the result.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pandas import DataFrame

_RENDERERS = "equivbench.report.notebook"


class Tabular:
    """A result of which there is a table."""

    __slots__ = ()

    table_factory: ClassVar[str]
    """The function that makes the table of an instance, as ``package.module:function``."""

    def to_dataframe(self) -> DataFrame:
        """The result as a data frame, a row each, in full precision.

        A quantity with an interval has four columns: its name, and the name with ``_low``,
        ``_high`` and ``_censored``. What was not measured is missing.

        Raises
        ------
        FailedError
            Without pandas, which comes with ``pip install 'equivbench[notebooks]'``.
        """
        frame: DataFrame = self._rendered("to_dataframe")
        return frame

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(self._rendered("to_html"))

    def _rendered(self, renderer: str) -> Any:
        table = pkgutil.resolve_name(self.table_factory)(self)
        return pkgutil.resolve_name(f"{_RENDERERS}:{renderer}")(table)
