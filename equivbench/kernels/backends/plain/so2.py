"""eSCN's SO(2) convolution in plain torch, Wigner matrices included (Passaro & Zitnick 2023,
2302.03655)."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.operations import SO2Convolution


def so2_kernel(operation: SO2Convolution, like: Tensor) -> Kernel:
    """Rows |m| <= mmax of each degree are turned by a batched product, then mixed by one dense map
    for each m."""
    lmax, mmax, channels = operation.lmax, operation.mmax, operation.channels
    heights = [2 * degree + 1 for degree in range(lmax + 1)]
    wigner = WignerToAxis(lmax, mmax, like)
    # Rows as they come from the degrees, (l, m), and as the maps take them: m after m, -m after m.
    rows = [(l, m) for l in range(lmax + 1) for m in range(-l, l + 1) if abs(m) <= mmax]
    by_order = sorted(rows, key=lambda row: (abs(row[1]), row[1] < 0, row[0]))
    to_orders = torch.tensor([rows.index(row) for row in by_order], device=like.device)
    to_degrees = torch.tensor([by_order.index(row) for row in rows], device=like.device)
    kept = [2 * min(degree, mmax) + 1 for degree in range(lmax + 1)]
    counts = operation.degrees
    weight_sizes = [count * channels for count in counts]
    row_counts = [count * (1 if m == 0 else 2) for m, count in enumerate(counts)]

    def run(inputs: Tensors) -> Tensor:
        x, edge_index = inputs["x"], inputs["edge_index"]
        turns = wigner(inputs["vectors"])
        gathered = x.index_select(0, edge_index[0]).view(
            edge_index.shape[1], sum(heights), channels
        )
        turned = [
            turn @ part
            for turn, part in zip(turns, torch.split(gathered, heights, dim=1), strict=True)
        ]
        z = torch.split(torch.cat(turned, dim=1).index_select(1, to_orders), row_counts, dim=1)
        scales = torch.split(inputs["weights"], weight_sizes, dim=1)
        maps = torch.split(inputs["mixing"], operation.mixing_sizes)
        mixed = [
            _mixed(m, counts[m], *one).view(len(gathered), row_counts[m], operation.hidden)
            for m, one in enumerate(zip(z, scales, maps, strict=True))
        ]
        y = torch.split(torch.cat(mixed, dim=1).index_select(1, to_degrees), kept, dim=1)
        messages = torch.cat(
            [turn.mT @ part for turn, part in zip(turns, y, strict=True)], dim=1
        ).flatten(1)
        return x.new_zeros(len(x), messages.shape[1]).index_add(0, edge_index[1], messages)

    return Kernel(run, "torch matmul")


def _mixed(m: int, count: int, z: Tensor, scale: Tensor, weights: Tensor) -> Tensor:
    """[edges, rows H] of one order, from z [edges, rows, C] with the rows of m and then those of
    -m."""
    if m == 0:
        return (z.flatten(1) * scale) @ weights.view(z.shape[1] * z.shape[2], -1)
    size = count * z.shape[2]
    cosine_map, sine_map = weights.view(2, size, -1).unbind()
    both = z.reshape(len(z), 2, size) * scale.unsqueeze(1)
    # Both orders by both maps in one product.
    cosine, sine = (both @ cosine_map, both @ sine_map)
    plus, minus = cosine[:, 0] - sine[:, 1], cosine[:, 1] + sine[:, 0]
    return torch.cat([plus, minus], dim=1)


class WignerToAxis:
    """Wigner matrices of rotations that take vectors to the polar axis y, rows |m| <= mmax only.

    D = J Z(-b) J^T Z(-a): turns about y are sines and cosines of multiples of an angle, and J, a
    quarter turn about z, makes them turns about x. a = atan2(x, z) and b = acos(y) are the
    direction's angles; only their sines and cosines occur.
    """

    def __init__(self, lmax: int, mmax: int, like: Tensor) -> None:
        self.lmax = lmax
        self.quarters, self.patterns, self.kept = [], [], []
        for degree in range(lmax + 1):
            turn = _quarter_turn(degree).to(like)
            pattern = torch.zeros(2 * lmax + 1, 2 * degree + 1, 2 * degree + 1)
            for m in range(-degree, degree + 1):
                pattern[lmax + abs(m), degree + m, degree + m] = 1.0
                if m:
                    # Rows -m of the harmonics are sines of m times the angle; the turn is
                    # backwards.
                    pattern[lmax - abs(m), degree + m, degree - m] = 1.0 if m > 0 else -1.0
            self.quarters.append(turn)
            self.patterns.append(pattern.flatten(1).to(like))
            self.kept.append(slice(max(0, degree - mmax), degree + mmax + 1))

    def __call__(self, vectors: Tensor) -> list[Tensor]:
        """One [edges, rows, 2 l + 1] a degree."""
        x, y, z = (vectors / vectors.square().sum(1, keepdim=True).sqrt()).unbind(1)
        squared = x.square() + z.square()
        # On the axis itself the first angle is free.
        safe = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt()
        on_axis = (squared == 0).to(x.dtype)
        first = self._multiples(z / safe + on_axis, x / safe)
        second = self._multiples(y, torch.where(squared > 0, safe, torch.zeros_like(safe)))
        out = []
        for degree, (quarter, pattern, kept) in enumerate(
            zip(self.quarters, self.patterns, self.kept, strict=True)
        ):
            shape = (len(vectors), 2 * degree + 1, 2 * degree + 1)
            right = quarter.T @ (first @ pattern).view(shape)
            out.append(quarter[kept] @ (second @ pattern).view(shape) @ right)
        return out

    def _multiples(self, cosine: Tensor, sine: Tensor) -> Tensor:
        """[edges, 2 lmax + 1]: sines of lmax ... 1 times an angle, then cosines of 0 ... lmax times
        it."""
        cosines, sines = [torch.ones_like(cosine)], [torch.zeros_like(sine)]
        for _ in range(self.lmax):
            cosines.append(cosines[-1] * cosine - sines[-1] * sine)
            sines.append(sines[-1] * cosine + cosines[-2] * sine)
        return torch.stack([*sines[:0:-1], *cosines], dim=1)


def _quarter_turn(degree: int) -> Tensor:
    """Wigner matrix in float64 of the turn about z that takes y to x, from harmonics: e3nn's own is
    good to float32 only."""
    points = torch.randn(
        4 * degree + 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    turned = torch.stack([points[:, 1], -points[:, 0], points[:, 2]], dim=1)
    before, after = (
        o3.spherical_harmonics(degree, one, normalize=True) for one in (points, turned)
    )
    solved: Tensor = torch.linalg.lstsq(before, after).solution.T
    return solved
