"""The kernels that take features into the frames of edges or back, as one C++ text: the template in
``cpp/`` filled in with its sizes and with where each row lies."""

from __future__ import annotations

from typing import NamedTuple

from equivbench.kernels.fused.native_source import template
from equivbench.kernels.operations.edge_frames import FrameTurn, frame_elements, frame_rows


class FrameRow(NamedTuple):
    """Where a row (l, m) of an edge's features, of its Wigner matrix and of its weights lies."""

    element: int
    """The first of its elements of the Wigner matrix."""
    row: int
    """Among the rows of features."""
    kind: int
    """Among the rows of weights, which m and -m share."""


def frames_source(turn: FrameTurn, back: bool, real: str) -> str:
    """The translation unit for ``turn``, ``back`` from the frames or into them, in ``real``
    (``float`` or ``double``); it exports ``launch``."""
    return template("frames.cpp.jinja").render(
        turn=turn, back=back, real=real, rows_of=lambda degree: rows_of(turn, degree)
    )


def rows_of(turn: FrameTurn, degree: int) -> list[FrameRow]:
    """The rows of l = ``degree``: that of m = 0, then for each m those of m and -m."""
    first: dict[int, int] = {}
    for place, (row, _) in enumerate(frame_elements(turn.lmax, turn.mmax)):
        first.setdefault(row, place)
    stored = frame_rows(turn.lmax, turn.mmax)
    kinds = [(l, m) for m, _ in enumerate(turn.counts) for l in range(m, turn.degree + 1)]
    return [
        FrameRow(first[stored.index((l, m))], number, kinds.index((l, abs(m))))
        for number, (l, m) in enumerate(turn.rows)
        if l == degree
    ]
