"""Tasks on clouds of points of different sizes, their points one after another: the shortest way to
a task of one's own on molecules, chains or point clouds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.specs import Field
from equivbench.tasks.arrays import in_memory
from equivbench.tasks.base import SPLITS, Split, Task, TaskData, mean_square

if TYPE_CHECKING:
    from torch import Tensor

    from equivbench.tasks.base import Batch

_DERIVED = ("edge_index",)
"""What a model may require."""


class CloudTask(Task, abstract=True):
    """Predict a tensor of each point, or one of each cloud, from tensors of its points, in squared
    error: the objective and the board metric, a mean over points or clouds.

    A model is called with the ``inputs`` [points, ...] of all clouds of a batch, one after another,
    and with ``batch`` [points] int64, the sorted index of each point's cloud. One that requires
    ``edge_index`` (a cutoff) gets [2, edges] int64 too, the pairs of points of one cloud that are
    closer: row 0 the source, row 1 the target.

    Parameters
    ----------
    name
        As it is registered.
    inputs
        Symmetry type by name of tensors [points, ...], in e3nn's notation (``"5x0e + 1o"``).
        Edges are those between ``pos``.
    target
        Name and symmetry type of the tensor to predict; a model returns it under this name.
    per
        ``point``: the target is [points, ...]; ``cloud``: [clouds, ...].
    units
        Unit by name, for people; the board metric's is the target's, squared.
    """

    index_field = "batch"

    def __init__(
        self,
        name: str,
        *,
        inputs: Mapping[str, str],
        target: tuple[str, str],
        per: Literal["point", "cloud"] = "point",
        units: Mapping[str, str] | None = None,
    ) -> None:
        if per not in ("point", "cloud"):
            raise UsageError(f"task {name!r}: per is 'point' or 'cloud', not {per!r}")
        self.name, self.prediction = name, target[0]
        units = units or {}
        unit = units.get(target[0], "1")
        self.board_unit = unit if unit == "1" else f"({unit})^2"
        self._inputs = (*inputs, self.index_field)
        of_points = [
            Field(each, ("points", "..."), "float32", kind, "node", units.get(each, "1"), "sample")
            for each, kind in inputs.items()
        ]
        rows = "points" if per == "point" else "clouds"
        level: Literal["node", "graph"] = "node" if per == "point" else "graph"
        self.fields = (
            *of_points,
            Field(
                self.index_field,
                ("points",),
                "int64",
                "0e",
                "none",
                "1",
                "sample",
                "sorted cloud index",
            ),
            Field(
                "edge_index",
                (2, "edges"),
                "int64",
                "0e",
                "none",
                "1",
                "derived",
                "pairs of one cloud within the required cutoff: source, target",
            ),
            Field(target[0], (rows, "..."), "float32", target[1], level, unit, "output"),
        )

    def assemble(
        self, batch: Batch, noise: Batch, requires: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The inputs, and the target."""
        for name in requires:
            if name not in _DERIVED:
                raise unknown_name(f"derived input of task {self.name}", name, _DERIVED)
        inputs = {name: batch[name] for name in self._inputs}
        if "edge_index" in requires:
            if "pos" not in inputs:
                raise UsageError(f"task {self.name!r} has no input pos, so it has no edges")
            from equivbench.kernels.neighbours import edges_within

            cutoff = float(requires["edge_index"])
            inputs["edge_index"] = edges_within(batch["pos"], batch["batch"], cutoff)
        return inputs, {self.prediction: batch[self.prediction]}

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        """Squared error, summed over trailing axes, averaged over points or clouds."""
        error = outputs[self.prediction] - targets[self.prediction]
        return error.square().reshape(len(error), -1).sum(1).mean()

    def samples_in(self, batch: Batch) -> int:
        """Number of clouds."""
        return int(batch["batch"][-1]) + 1

    def baseline(self, split: Split) -> float:
        """Mean square of the target."""
        return mean_square(split, self.prediction, lambda batch: len(batch[self.prediction]))


@dataclass(frozen=True)
class CloudSplit:
    """Clouds of ``sizes`` [clouds] int64 points each: ``points`` [points, ...] by field, one cloud
    after another, ``clouds`` [clouds, ...] by field, and the independent unit of each cloud."""

    points: Mapping[str, Tensor]
    clouds: Mapping[str, Tensor]
    sizes: Tensor
    groups: Tensor

    def __len__(self) -> int:
        """Number of clouds."""
        return len(self.sizes)

    def collate(self, indices: Tensor) -> Batch:
        """The clouds at ``indices`` [n], their points one after another, with ``batch``."""
        import torch

        counts = self.sizes[indices]
        batch = torch.repeat_interleave(counts)
        # Point p of the batch is row first[c] + (p - points before its cloud in the batch).
        first = self.sizes.cumsum(0) - self.sizes
        rows = torch.arange(len(batch)) + (first[indices] - (counts.cumsum(0) - counts))[batch]
        return {
            **{name: tensor[rows] for name, tensor in self.points.items()},
            **{name: tensor[indices] for name, tensor in self.clouds.items()},
            "batch": batch,
        }


@dataclass(frozen=True)
class CloudData:
    """A data set made in memory by ``make(split)`` for train, validation and test: ``sizes``
    [clouds] int64, the points of each cloud, and by field name tensors [points, ...], or
    [clouds, ...] where ``per_cloud`` names them.

    A tensor called ``groups`` [clouds] int64 says which clouds belong together (conformers of one
    molecule), numbered from 0. ``make`` must give the same tensors every time: the checksum in
    records is that of their bytes.
    """

    name: str
    make: Callable[[str], Mapping[str, Tensor]]
    per_cloud: Sequence[str] = ()
    version: str = "1"

    def path(self) -> Path:
        """The file of the code that makes it: there is no other."""
        return Path(inspect.getfile(self.make))

    def prepare(self) -> Path:
        """Nothing to do: :meth:`path`."""
        return self.path()

    def verify(self) -> str:
        """SHA-256 over the bytes of all tensors."""
        return self.load().card.sha256

    def load(self) -> TaskData:
        """The splits; raises ``FailedError`` where tensors and sizes of one split do not fit, or a
        cloud or a split is empty."""
        splits = {split: self._split(split) for split in SPLITS}
        return in_memory(
            self.name,
            self.version,
            {
                name: (each, {**each.points, **each.clouds, "sizes": each.sizes})
                for name, each in splits.items()
            },
        )

    def _split(self, name: str) -> CloudSplit:
        import torch

        tensors = dict(self.make(name))
        if "sizes" not in tensors:
            raise FailedError(f"data set {self.name}: its {name} split has no sizes")
        sizes = tensors.pop("sizes")
        groups = tensors.pop("groups", torch.arange(len(sizes)))
        if not len(sizes) or int(sizes.min()) < 1:
            raise FailedError(f"data set {self.name}: its {name} split has an empty cloud, or none")
        clouds = {each: tensors.pop(each) for each in self.per_cloud if each in tensors}
        of_points = {len(tensor) for tensor in tensors.values()} | {int(sizes.sum())}
        of_clouds = {len(tensor) for tensor in clouds.values()} | {len(sizes), len(groups)}
        if len(of_points) > 1 or len(of_clouds) > 1:
            raise FailedError(
                f"data set {self.name}: the tensors of its {name} split must have a row for each "
                f"of {int(sizes.sum())} points, those that per_cloud names for each of "
                f"{len(sizes)} clouds"
            )
        return CloudSplit(tensors, clouds, sizes, groups)
