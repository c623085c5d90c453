"""What all figures share: a canvas, and whether a file can be drawn into. matplotlib (extra
``plots``) is imported on use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from equivbench.errors import FailedError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def empty_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, laid out by constraints; ``FailedError`` without
    matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FailedError(
            "drawing a figure needs matplotlib; pip install 'equivbench[plots]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def require_drawable(path: Path) -> None:
    """Raise, before any work is done for it, what would stop a figure from being saved at ``path``.

    ``FailedError`` without matplotlib, ``UsageError`` for a suffix that it does not know or a
    folder that is not there.
    """
    known = empty_figure(1.0, 1.0).canvas.get_supported_filetypes()
    if path.suffix.lstrip(".") not in known:
        raise UsageError(
            f"cannot draw into {path}: its suffix is not one of {', '.join(sorted(known))}"
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(f"cannot draw into {path}: there is no folder {path.parent}")
