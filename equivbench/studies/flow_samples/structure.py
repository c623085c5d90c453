"""Statistics of CA traces, in Angstrom: bond lengths, clashes, size and handedness, of samples and
of real chains alike; the files that hold them, and the picture of samples above real chains.

Traces are [chains, residues, 3] with a mask [chains, residues] of the residues that exist, first to
last without a gap.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError, UsageError
from equivbench.records.files import write_atomically
from equivbench.report.figures import COLOURS, empty_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BOND, BOND_TOLERANCE = 3.8, 0.1
"""A: the CA-CA distance over a trans peptide bond (3.80-3.82 +- .05 in the shipped chains), and
what counts as near it."""
CLASH = 3.0
"""A: nearer than this no two CAs more than two residues apart come in any of the shipped chains
(42,000 residues)."""
CLASH_SEPARATION = 3
"""Least |i - j| of a pair that can clash."""
HELIX_DIHEDRAL, HELIX_DIHEDRAL_TOLERANCE = 50.0, 20.0
HELIX_SPAN, HELIX_SPAN_TOLERANCE = 5.3, 0.5
"""Degrees and A: CA dihedral of four residues, and distance of the first to the fourth, in a
right-handed alpha helix (P-SEA, Labesse et al., CABIOS 1997)."""
SIZE_FACTOR, SIZE_EXPONENT = 2.2, 0.38
"""Radius of gyration of globular proteins: 2.2 N^0.38 A (Skolnick, Kolinski and Ortiz, J. Mol.
Biol. 1997)."""
_LARGEST = 999.0
"""A: a coordinate in a PDB file has three digits, a sign and a point before its three decimals."""
SHOWN = 5
"""Traces in each row."""
_FLATNESS = 0.7
"""Height of the traces' panels over their width: principal axes lie flat."""
SAMPLED, REAL = COLOURS["augmented"], "#555555"


@dataclass(frozen=True)
class StructureStatistics:
    """What a set of CA traces looks like. A fraction of nothing (no chain of four residues) is
    NaN."""

    chains: int
    residues: int
    """Over all chains."""
    bond_mean: float
    """CA-CA distance of neighbours in the chain, A."""
    bond_std: float
    bond_near: float
    """Fraction of neighbours within ``BOND`` +- ``BOND_TOLERANCE``."""
    clashes: float
    """Pairs nearer than ``CLASH`` per 100 residues, of those at least ``CLASH_SEPARATION`` apart in
    the chain."""
    clashing: float
    """Fraction of chains with a clash."""
    radius: float
    """Mean radius of gyration, A."""
    relative_radius: float
    """Mean of the radius of gyration over that of a globular protein of its length: 1 is as compact
    as those."""
    helix_right: float
    """Fraction of four successive residues in the shape of a right-handed alpha helix."""
    helix_left: float
    """The same of its mirror image."""
    chirality: float
    """Mean over four successive residues of their normalised triple product, -1 to 1: the mirror
    image has its negative."""


def structure_statistics(positions: Array, mask: Mask) -> StructureStatistics:
    """Statistics of ``positions`` [chains, residues, 3] in A; ``UsageError`` for chains without
    numbers."""
    if not np.isfinite(positions[mask]).all():
        raise UsageError(
            "CA traces hold positions that are not finite numbers; the sampler or the file that "
            "made them is broken"
        )
    bonds = bond_lengths(positions, mask)
    lengths = mask.sum(1)
    clashes = clash_counts(positions, mask)
    radii = radii_of_gyration(positions, mask)
    angles, spans, triples = quadruplets(positions, mask)
    helical = np.abs(spans - HELIX_SPAN) <= HELIX_SPAN_TOLERANCE
    right, left = (
        helical & (np.abs(sign * angles - HELIX_DIHEDRAL) <= HELIX_DIHEDRAL_TOLERANCE)
        for sign in (1, -1)
    )
    return StructureStatistics(
        chains=len(positions),
        residues=int(lengths.sum()),
        bond_mean=_mean(bonds),
        bond_std=float(bonds.std()) if len(bonds) else float("nan"),
        bond_near=_mean(np.abs(bonds - BOND) <= BOND_TOLERANCE),
        clashes=float(100 * clashes.sum() / lengths.sum()),
        clashing=_mean(clashes > 0),
        radius=_mean(radii),
        relative_radius=_mean(radii / globular_radius(lengths)),
        helix_right=_mean(right),
        helix_left=_mean(left),
        chirality=_mean(triples),
    )


def bond_lengths(positions: Array, mask: Mask) -> Array:
    """[bonds] A, of neighbours in the chain, chain after chain."""
    return np.asarray(np.linalg.norm(np.diff(positions, axis=1), axis=-1)[mask[:, 1:]])


def clash_counts(positions: Array, mask: Mask) -> NDArray[np.int64]:
    """[chains] pairs at least ``CLASH_SEPARATION`` apart in the chain and nearer than ``CLASH``."""
    residue = np.arange(positions.shape[1])
    apart = residue[None, :] - residue[:, None] >= CLASH_SEPARATION
    counts = np.zeros(len(positions), dtype=np.int64)
    # One chain at a time: all pairs of a long chain are a large array already.
    for chain, (trace, exists) in enumerate(zip(positions, mask, strict=True)):
        near = np.square(trace[:, None] - trace[None]).sum(-1) < CLASH**2
        counts[chain] = (near & apart & exists[:, None] & exists).sum()
    return counts


def radii_of_gyration(positions: Array, mask: Mask) -> Array:
    """[chains] A: root mean square distance of the CAs from their mean."""
    weight = mask[..., None] / mask.sum(1)[:, None, None]
    present = np.where(mask[..., None], positions, 0.0)
    centred = present - (weight * present).sum(1, keepdims=True)
    return np.asarray(np.sqrt((weight * np.square(centred)).sum((1, 2))))


def globular_radius(lengths: NDArray[np.int64] | Array) -> Array:
    """Radius of gyration in A expected of globular proteins of ``lengths`` residues."""
    return np.asarray(SIZE_FACTOR * lengths.astype(np.float64) ** SIZE_EXPONENT)


def quadruplets(positions: Array, mask: Mask) -> tuple[Array, Array, Array]:
    """(dihedrals in degrees, distances first to fourth in A, normalised triple products), each
    [quadruplets].

    Of every four successive residues. The dihedral is positive for a right-handed twist (IUPAC). A
    triple product b1 . (b2 x b3) / (|b1| |b2| |b3|) of the three bonds changes its sign, and
    nothing else, in the mirror image -x: exactly, in floating point too. Where a bond has no length
    it is 0.
    """
    bonds = np.diff(positions, axis=1)
    first, second, third = (
        bonds[:, start : bonds.shape[1] - 2 + start][mask[:, 3:]] for start in range(3)
    )
    normals = np.cross(first, second), np.cross(second, third)
    triple = (first * normals[1]).sum(-1)
    lengths = [np.linalg.norm(bond, axis=-1) for bond in (first, second, third)]
    angles = np.degrees(np.arctan2(lengths[1] * triple, (normals[0] * normals[1]).sum(-1)))
    volume = lengths[0] * lengths[1] * lengths[2]
    spans = np.linalg.norm(first + second + third, axis=-1)
    return angles, spans, triple / np.where(volume > 0, volume, 1.0)


def write_pdb(path: Path, positions: Array, mask: Mask) -> Path:
    """Write ``positions`` [chains, residues, 3] in A into ``path`` and return it: models 1, 2, ...
    of glycines' CAs.

    Raises ``FailedError`` if a coordinate does not fit the format's columns.
    """
    lines = []
    for number, (trace, exists) in enumerate(zip(positions, mask, strict=True), start=1):
        if not (abs(trace[exists]) < _LARGEST).all():
            raise FailedError(
                f"sample {number} has coordinates beyond {_LARGEST:g} A, which a PDB file cannot "
                f"hold; use .npz"
            )
        lines.append(f"MODEL     {number:4d}")
        for residue, (x, y, z) in enumerate(trace[exists].tolist(), start=1):
            lines.append(
                f"ATOM  {residue:5d}  CA  GLY A{residue:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  "
                f"0.00           C  ",
            )
        lines += ["TER", "ENDMDL"]
    write_atomically(path, ("\n".join([*lines, "END"]) + "\n").encode())
    return path


def write_npz(path: Path, positions: Array, mask: Mask) -> Path:
    """Write ``positions`` [chains, residues, 3] in A, in float32, and ``mask`` into ``path`` and
    return it."""
    content = io.BytesIO()
    np.savez_compressed(content, positions=positions.astype(np.float32), mask=mask)
    write_atomically(path, content.getvalue())
    return path


def _mean(values: NDArray[np.bool_] | Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


@dataclass(frozen=True)
class Traces:
    """CA traces [chains, residues, 3] in A with their mask [chains, residues], and what to call
    them."""

    positions: Array
    mask: Mask
    label: str


def draw_structures(samples: Traces, real: Traces, *, title: str) -> Figure:
    """The figure: rows of samples and of real chains, N terminus dark to C terminus light; three
    distributions below.

    Every trace is turned, never mirrored, so that its longest axis lies across; all are to one
    scale. Raises ``FailedError`` without matplotlib.
    """
    figure = empty_figure(10.5, 6.8)
    figure.suptitle(title)
    grid = figure.add_gridspec(3, 1, height_ratios=(1.0, 1.0, 1.35))
    rows = [(each, _chosen(each)) for each in (samples, real)]
    reach = max(float(np.abs(trace).max()) for _, traces in rows for trace in traces)
    for line, (each, traces) in enumerate(rows):
        panels = grid[line].subgridspec(1, SHOWN)
        for column, trace in enumerate(traces):
            axes = figure.add_subplot(panels[column], projection="3d")
            _draw_trace(axes, trace, reach)
            radius = radii_of_gyration(trace[None], np.ones((1, len(trace)), dtype=bool))[0]
            axes.set_title(
                f"{each.label}: {len(trace)} residues, Rg {radius:.1f} A", fontsize=8, pad=0
            )
    panels = grid[2].subgridspec(1, 3)
    bonds, angles, sizes = (figure.add_subplot(panels[column]) for column in range(3))
    for each, colour in ((samples, SAMPLED), (real, REAL)):
        lengths = bond_lengths(each.positions, each.mask)
        dihedrals = quadruplets(each.positions, each.mask)[0]
        for axes, values, low, high in (
            (bonds, lengths, 3.0, 4.6),
            (angles, dihedrals, -180.0, 180.0),
        ):
            # What lies outside counts in the outermost bin.
            axes.hist(
                np.clip(values, low, high),
                bins=np.linspace(low, high, 65).tolist(),
                density=True,
                histtype="step",
                linewidth=1.4,
                color=colour,
                label=each.label,
            )
    bonds.set(
        xlabel="CA-CA distance [A], others in the end bins",
        ylabel="density, logarithmic",
        yscale="log",
    )
    for sign, name in ((1, "right"), (-1, "left")):
        angles.axvline(sign * HELIX_DIHEDRAL, color="black", linewidth=0.8, linestyle=":")
        angles.annotate(
            f"{name}-handed\nhelix",
            (sign * HELIX_DIHEDRAL, 0.98),
            xycoords=("data", "axes fraction"),
            ha="left" if sign > 0 else "right",
            va="top",
            fontsize=7,
            xytext=(3 * sign, 0),
            textcoords="offset points",
        )
    angles.set(xlabel="CA dihedral [degrees]", ylabel="density", xticks=range(-180, 181, 60))
    for each, colour in ((real, REAL), (samples, SAMPLED)):
        sizes.scatter(
            each.mask.sum(1),
            radii_of_gyration(each.positions, each.mask),
            s=14,
            color=colour,
            alpha=0.7,
            label=each.label,
        )
    counts = np.concatenate([each.mask.sum(1) for each in (samples, real)])
    lengths = np.linspace(0.9 * counts.min(), 1.1 * counts.max(), 50)
    sizes.plot(
        lengths,
        globular_radius(lengths),
        color="black",
        linewidth=0.8,
        linestyle=":",
        label="2.2 N$^{0.38}$ A",
    )
    sizes.set(xlabel="residues N", ylabel="radius of gyration [A]")
    for axes in (bonds, angles, sizes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    bonds.legend(frameon=False, fontsize=8)
    sizes.legend(edgecolor="none", fontsize=8)
    return figure


def _chosen(traces: Traces) -> list[Array]:
    """Up to ``SHOWN`` chains, evenly over the set, each in its principal axes."""
    count = min(SHOWN, len(traces.positions))
    picked = np.linspace(0, len(traces.positions) - 1, count).round().astype(int)
    return [_across(traces.positions[index][traces.mask[index]]) for index in picked]


def _across(trace: Array) -> Array:
    """``trace`` [residues, 3] about its mean, turned so that it runs along x, and extends least
    along y, the line of sight."""
    centred = trace - trace.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=True)
    longest, middle = axes[0], axes[1]
    if centred[-1] @ longest < centred[0] @ longest:
        longest, middle = -longest, -middle
    # y = z cross x, so that the new axes are right-handed and the chain keeps its hand.
    return np.asarray(centred @ np.stack([longest, np.cross(middle, longest), middle]).T)


def _draw_trace(axes: Any, trace: Array, reach: float) -> None:
    """The chain as a thick coloured line over a darker one, seen along y."""
    from matplotlib import colormaps
    from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

    segments = np.stack([trace[:-1], trace[1:]], axis=1)
    colours = colormaps["viridis"](np.linspace(0.0, 0.95, len(segments)))
    axes.add_collection3d(
        Line3DCollection(segments, colors="black", linewidths=3.4, capstyle="round")
    )
    axes.add_collection3d(
        Line3DCollection(segments, colors=colours, linewidths=2.4, capstyle="round")
    )
    height = _FLATNESS * reach
    axes.set(xlim=(-reach, reach), ylim=(-height, height), zlim=(-height, height))
    axes.set_box_aspect((1, _FLATNESS, _FLATNESS), zoom=1.2)
    axes.view_init(elev=12, azim=-90)
    axes.set_proj_type("ortho")
    axes.set_axis_off()
