"""The picture of sampled backbones: their traces above real ones, and the distributions that tell
them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from equivbench.report.figures import COLOURS, empty_figure
from equivbench.studies.flow_samples.structure import (
    HELIX_DIHEDRAL,
    Array,
    Mask,
    bond_lengths,
    globular_radius,
    quadruplets,
    radii_of_gyration,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 5
"""Traces in each row."""
_FLATNESS = 0.7
"""Height of the traces' panels over their width: principal axes lie flat."""
SAMPLED, REAL = COLOURS["augmented"], "#555555"


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
