"""Tasks on plain arrays: one row a sample, inputs and target as tensors in memory. The shortest way
to a task of one's own."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equivbench.errors import FailedError, UsageError
from equivbench.specs import Field, Role
from equivbench.tasks.base import SPLITS, Card, Split, Task, TaskData, mean_square

if TYPE_CHECKING:
    from torch import Tensor

    from equivbench.tasks.base import Batch


class ArrayTask(Task, abstract=True):
    """Predict one tensor of each sample from its others, in squared error: the objective and the
    board metric.

    Parameters
    ----------
    name
        As it is registered.
    inputs
        Symmetry type by name of tensors [samples, ...], in e3nn's notation (``"5x0e + 1o"``) or
        ``"voxel(IRREPS)"``.
    target
        Name and symmetry type of the tensor to predict; a model returns it under this name.
    units
        Unit by name, for people; the board metric's is the target's, squared.
    """

    index_field = None

    def __init__(
        self,
        name: str,
        *,
        inputs: Mapping[str, str],
        target: tuple[str, str],
        units: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.prediction = name, target[0]
        units = units or {}
        declared: list[tuple[str, str, Role]] = [
            (field, symmetry, "sample") for field, symmetry in inputs.items()
        ]
        self.fields = tuple(
            Field(
                field, ("samples", "..."), "float32", symmetry, "graph", units.get(field, "1"), role
            )
            for field, symmetry, role in [*declared, (*target, "output")]
        )
        unit = units.get(target[0], "1")
        self.board_unit = unit if unit == "1" else f"({unit})^2"

    def assemble(
        self, batch: Batch, noise: Batch, requires: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The inputs, and the target."""
        if requires:
            raise UsageError(
                f"task {self.name!r} derives no inputs, but a model requires {', '.join(requires)}"
            )
        inputs = [field.name for field in self.fields if field.role == "sample"]
        return {name: batch[name] for name in inputs}, {self.prediction: batch[self.prediction]}

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        """Squared error, summed over trailing axes, averaged over samples."""
        return (
            (outputs[self.prediction] - targets[self.prediction]).square().flatten(1).sum(1).mean()
        )

    def samples_in(self, batch: Batch) -> int:
        """Rows of the target."""
        return len(batch[self.prediction])

    def baseline(self, split: Split) -> float:
        """Mean square of the target."""
        return mean_square(split, self.prediction, self.samples_in)


@dataclass(frozen=True)
class ArraySplit:
    """Samples as tensors ``[samples, ...]`` by field, with the independent unit of each (default:
    each its own)."""

    tensors: Mapping[str, Tensor]
    groups: Tensor

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.groups)

    def collate(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` [n]."""
        return {name: tensor[indices] for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class ArrayData:
    """A data set made in memory by ``make(split)`` for train, validation and test: tensors
    ``[samples, ...]`` by field name.

    A tensor called ``groups`` [samples] int64 says which samples belong together (molecules,
    clusters), numbered from 0. ``make`` must give the same tensors every time: the checksum in
    records is that of their bytes.
    """

    name: str
    make: Callable[[str], Mapping[str, Tensor]]
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
        """The splits; raises ``FailedError`` where tensors of one split differ in length, or a
        split is empty."""
        splits = {split: self._split(split) for split in SPLITS}
        return in_memory(
            self.name, self.version, {name: (each, each.tensors) for name, each in splits.items()}
        )

    def _split(self, name: str) -> ArraySplit:
        import torch

        tensors = dict(self.make(name))
        groups = tensors.pop("groups", None)
        lengths = {len(tensor) for tensor in tensors.values()}
        if len(lengths) != 1 or lengths == {0} or (groups is not None and {len(groups)} != lengths):
            raise FailedError(
                f"data set {self.name}: the tensors of its {name} split must have one length, "
                "above 0"
            )
        return ArraySplit(tensors, torch.arange(lengths.pop()) if groups is None else groups)


def in_memory(
    name: str, version: str, splits: Mapping[str, tuple[Split, Mapping[str, Tensor]]]
) -> TaskData:
    """The ``splits`` by name, each with the tensors that it is made of, as the data set ``name``:
    its checksum is that of their types, shapes and bytes, and of what is independent of what."""
    digest = hashlib.sha256()
    for samples, tensors in splits.values():
        for field, values in sorted({**tensors, "groups": samples.groups}.items()):
            digest.update(f"{field} {values.dtype} {tuple(values.shape)} ".encode())
            digest.update(values.contiguous().numpy().tobytes())
    sizes = {split: len(samples) for split, (samples, _) in splits.items()}
    train, validation, test = (splits[split][0] for split in SPLITS)
    return TaskData(train, validation, test, Card(name, version, digest.hexdigest(), sizes))
