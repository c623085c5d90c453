"""Features in the frames of edges: their rows, the elements of the Wigner matrices that take them
there, and what is turned into these frames or back."""

from __future__ import annotations

from dataclasses import dataclass


def frame_rows(lmax: int, mmax: int) -> list[tuple[int, int]]:
    """(l, m) of the rows that features in an edge's frame keep: those of m = 0, then for each m up
    to ``mmax`` those of m and those of -m, each by l."""
    orders = [0, *(sign * m for m in range(1, mmax + 1) for sign in (1, -1))]
    return [(l, m) for m in orders for l in range(abs(m), lmax + 1)]


def frame_elements(lmax: int, mmax: int) -> list[tuple[int, int]]:
    """(row of :func:`frame_rows`, row of a node's features) of the elements of an edge's Wigner
    matrix that are not zero, row by row: a rotation mixes no degrees.

    Those of lower orders come first, and those of m = 0 are spherical harmonics of the edge.
    """
    rows = frame_rows(lmax, mmax)
    return [(row, one) for row, (l, _) in enumerate(rows) for one in range(l**2, (l + 1) ** 2)]


@dataclass(frozen=True)
class FrameTurn:
    """Features of nodes, of l = 0 to ``degree``, that are turned into the frames of edges or out of
    them, by some of the elements of Wigner matrices of ``lmax`` and ``mmax``."""

    channels: int
    """Of a node, for each row of its features."""
    ends: int
    """1: an edge has the features of one node, 2: those of the neighbour and of the centre, side by
    side in each row."""
    lmax: int
    mmax: int
    degree: int
    """At most ``lmax``."""
    order: int
    """The highest m of the rows that are kept, at most ``mmax`` and ``degree``."""

    @property
    def rows(self) -> list[tuple[int, int]]:
        """(l, m) of the rows in an edge's frame."""
        return frame_rows(self.degree, self.order)

    @property
    def counts(self) -> list[int]:
        """Degrees that have each m = 0, 1, ... ``order``: rows of m, of -m and of weights."""
        return [self.degree + 1 - m for m in range(self.order + 1)]

    @property
    def row_counts(self) -> list[int]:
        """Rows of m and -m together."""
        return [(1 if m == 0 else 2) * count for m, count in enumerate(self.counts)]

    @property
    def frame_size(self) -> int:
        """Elements of an edge's Wigner matrix, those included that are not used here."""
        return len(frame_elements(self.lmax, self.mmax))

    @property
    def used(self) -> int:
        """Elements of it that are used here."""
        return len(frame_elements(self.degree, self.order))

    @property
    def edge_size(self) -> int:
        """Features of an edge."""
        return sum(self.row_counts) * self.ends * self.channels

    @property
    def weight_size(self) -> int:
        """Weights of an edge where each degree and |m| has one a channel."""
        return sum(self.counts) * self.ends * self.channels

    @property
    def node_size(self) -> int:
        """Features of a node."""
        return (self.degree + 1) ** 2 * self.channels
