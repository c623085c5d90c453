"""The contract of a task: what the loop, the measure and the board need to know, and nothing about
rotations."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from equivbench.errors import UsageError, unknown_name
from equivbench.specs import Field, Group

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Batch = Mapping[str, "torch.Tensor"]
"""Named tensors: the fields of some samples."""
SPLITS = ("train", "validation", "test")
"""In the order of the codes in a table's ``split`` column."""


@dataclass(frozen=True)
class Card:
    """What a data set is and where it comes from, as it goes into records."""

    name: str
    version: str
    sha256: str
    sizes: Mapping[str, int]
    """Samples per split."""


@runtime_checkable
class Split(Protocol):
    """One split of a data set, held in memory on the host."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    @property
    def groups(self) -> Tensor:
        """[samples] int64: the independent unit (molecule, cluster) of each sample, numbered from 0
        in this split."""
        ...

    def collate(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` [n] as one batch of host tensors (fields of role
        ``sample``)."""
        ...


@dataclass(frozen=True)
class TaskData:
    """The splits of a data set and its card."""

    train: Split
    validation: Split
    test: Split
    card: Card
    out_of_distribution: Mapping[str, Split] = field(default_factory=dict)
    """Further test sets that differ from the training split, by what is different."""

    def split(self, name: str) -> Split:
        """The split called ``name``: train, validation, test or one of ``out_of_distribution``."""
        splits: dict[str, Split] = {each: getattr(self, each) for each in SPLITS}
        splits |= self.out_of_distribution
        if name not in splits:
            raise unknown_name("split", name, splits)
        return splits[name]


@runtime_checkable
class DatasetSource(Protocol):
    """Where a data set's file comes from."""

    def path(self) -> Path:
        """Where the file is, or would be once prepared."""
        ...

    def prepare(self) -> Path:
        """Build or fetch the file if it is missing, atomically; raises ``FailedError`` with what to
        do."""
        ...

    def verify(self) -> str:
        """The file's SHA-256 after checking it against the expected one; raises ``FailedError`` on
        a mismatch."""
        ...

    def load(self) -> TaskData:
        """The splits; raises ``FailedError`` if the file is missing, cut short or of the wrong
        content."""
        ...


@dataclass(frozen=True)
class Feedback:
    """An input that is the model's own earlier output on the same sample (self-conditioning, Chen
    et al. 2023).

    ``assemble`` gives zeros for ``input``. In training a pass without gradients comes first for a
    part ``probability`` of the batches and its ``output`` goes in as ``input``. In a measurement
    that pass is made once, on the sample as it is, and what it gives rotates with the sample under
    the type that ``input`` declares.
    """

    input: str
    output: str
    probability: float


class Task(ABC):
    """One learning problem. Subclasses declare their fields; how a rotation acts follows from the
    declared types."""

    name: str
    fields: tuple[Field, ...]
    """Every tensor: sample fields, noise, derived inputs, outputs. Targets are sample fields of the
    outputs' names."""
    prediction: str
    """The output whose squared error against the target of the same name is the board metric."""
    index_field: str | None
    """The field that maps node rows to samples (``batch``), or None where every field is per
    graph."""
    board_unit: str
    """Unit of the board metric, e.g. ``(eV/A)^2``."""
    group: Group = "so3"
    """The group of the equivariance error in records; a pair's preset may choose another."""
    advice: ClassVar[str] = ""
    """What to do with a model that is called in another way, at the end of the error about it
    (``; wrap it``)."""
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Switches of the task that apply to every arm, with their values, the default first
    (``{"forces": ("direct", "conservative")}``); a run's choice is its record's ``variant``."""

    test_points: ClassVar[int] = 1
    """How often each test sample is judged, each time under conditions of its own
    (:meth:`test_noise`), such as flow times."""
    reported: ClassVar[tuple[str, ...]] = ()
    """Further outputs that are trained: their mean squared errors stand beside the board metric,
    for a model that gives them."""
    also_needed: tuple[str, ...] = ()
    """Outputs that a model must give beside the prediction."""
    feedback: ClassVar[Feedback | None] = None
    interpolates: ClassVar[bool] = False
    """Whether a general rotation acts on outputs by interpolation (grids). The floor of a
    measurement on SO(3) is then the equivariance error of the ``linear`` one of :meth:`untrained`,
    which is equivariant but for the interpolation."""

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if abstract:
            return
        missing = [
            name
            for name in ("name", "fields", "prediction", "index_field", "board_unit")
            if not hasattr(cls, name)
        ]
        if missing:
            raise TypeError(f"task class {cls.__name__} does not declare {', '.join(missing)}")

    @property
    def first_axes(self) -> dict[str, str]:
        """What the first axis of each field counts: ``graph``, ``node`` or ``none`` of both.
        Bookkeeping is per whatever its first axis counts."""
        counted = {each.shape[:1]: each.per for each in self.fields if each.per != "none"}
        return {each.name: counted.get(each.shape[:1], "none") for each in self.fields}

    def judged_on(self, output: str) -> Task:
        """This task with another of its outputs as the prediction: what is decomposed then, in the
        square of its own unit. Raises ``UsageError`` where it has no such output."""
        if output == self.prediction:
            return self
        outputs = {field.name: field for field in self.fields if field.role == "output"}
        if output not in outputs:
            raise unknown_name(f"output of task {self.name}", output, outputs)
        other = copy.copy(self)
        other.prediction, other.also_needed = output, (*self.also_needed, self.prediction)
        unit = outputs[output].unit
        other.board_unit = unit if unit == "1" else f"({unit})^2"
        return other

    def noise(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Random tensors of this sample batch (fields of role ``noise``); they rotate with the
        sample. Default none.

        Drawn on ``generator.device``, which may be another than the batch's.
        """
        return {}

    def test_noise(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Like :meth:`noise`, for a measurement: the batch holds every sample ``test_points`` times
        in a row."""
        return self.noise(batch, generator)

    def adapt(self, model: torch.nn.Module, variant: Mapping[str, str]) -> torch.nn.Module:
        """The model under the chosen options, e.g. wrapped so that its forces are the energy's
        gradient."""
        return model

    def rotate(self, tensors: Batch, rotations: Tensor, index: Tensor | None) -> dict[str, Tensor]:
        """``tensors`` (a batch, noise, targets or outputs) with every declared type rotated; the
        rest passes through.

        ``rotations`` is [graphs, 3, 3] float64 (the inverse action: their transposes) or [1, 3, 3]
        for all graphs alike, ``index`` [nodes] int64 the graph of each node, or None where no field
        is per node.
        """
        from equivbench.symmetry.types import rotate

        return rotate(tensors, self.fields, rotations, index)

    @abstractmethod
    def assemble(
        self, batch: Batch, noise: Batch, requires: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(inputs passed to the model by keyword, targets) of a sample batch that is already
        rotated.

        Builds the derived inputs that the model ``requires`` (neighbour lists, voxel grids); timed
        as data.
        """

    @abstractmethod
    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        """The training objective, a scalar: a function of the outputs for all samples of a batch.

        Of the ``inputs`` it may read what :meth:`assemble` gives where nothing is required: an arm
        on several devices builds derived inputs for each device's own samples only.
        """

    def rotational_gradient(
        self, variant: Mapping[str, str], requires: Mapping[str, float]
    ) -> Callable[[Batch, Batch], Tensor]:
        """The function of (outputs, inputs) of a model under the options ``variant`` that gives
        [samples, 3]: the derivative of each sample's energy by the angle of a rotation of the whole
        sample about x, y and z.

        It reads of the inputs what :meth:`objective` may. Raises ``UsageError`` where such outputs
        do not hold an energy's gradient by everything of the sample that turns, as by default.
        """
        raise UsageError(
            f"task {self.name} has no energy whose gradient its models predict, so no arm of it "
            "has a symmetry loss of the kind rotational-gradient"
        )

    @abstractmethod
    def samples_in(self, batch: Batch) -> int:
        """Number of samples in a batch."""

    def weights(self, batch: Batch) -> Tensor | None:
        """Weights of the squared errors, broadcast over the prediction (a mask is 0 or 1), or None
        for one a row.

        The board metric is the weighted sum of squared errors over the sum of the weights *as
        given*: a mask [samples, residues, 1] makes it a mean over residues of |error|^2, one of the
        prediction's own shape a mean over all components. ``batch`` holds sample fields and noise
        or, for the penalty of a symmetry loss, inputs and targets.
        """
        return None

    def strata(self, batch: Batch) -> tuple[tuple[str, ...], Tensor] | None:
        """(names, index of each prediction row into them) for the ``by`` part of a measurement, or
        None."""
        return None

    def within_reach(self, model: torch.nn.Module, split: Split) -> Split:
        """The samples of ``split`` that ``model`` can be asked about at all; default all of
        them."""
        return split

    def not_shown(self, requires: Mapping[str, float], split: Split) -> str | None:
        """What of the samples of ``split`` a model that requires this does not see, in a sentence;
        None where it sees all of them, as by default."""
        return None

    @abstractmethod
    def baseline(self, split: Split) -> float:
        """Board metric on ``split`` of a predictor that has learned nothing, such as zero: what
        ``explained`` is relative to."""

    def untrained(self, data: TaskData, seed: int = 0) -> Mapping[str, torch.nn.Module]:
        """Predictors that know no more than two-point statistics of the training split, by name;
        none by default.

        ``linear`` is the best linear one; others are there for what they leave out. Called and
        judged like any model, so that an error and its share can be read beside them. Exactly
        equivariant, but for the interpolation of grids.
        """
        return {}


def mean_square(split: Split, field: str, rows: Callable[[Batch], int]) -> float:
    """Squares of a sample field summed over ``split``, over its ``rows``: the error of predicting
    0."""
    import torch

    total, count = 0.0, 0
    for indices in torch.split(torch.arange(len(split)), 4096):
        batch = split.collate(indices)
        total += float(batch[field].double().square().sum())
        count += rows(batch)
    return total / count
