"""The symmetry of a pretrained network that predicts forces: the measurement of any model of the
task ``forcefield``, asked through the network's own process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.measure.equivariance import measure_equivariance
from equivbench.measure.measurement import Measurement
from equivbench.pretrained.networks import PretrainedNetwork
from equivbench.pretrained.outcome import WARM_UP, Asked, Outcome
from equivbench.pretrained.processes import NetworkProcess
from equivbench.registry import DATASETS, resolve
from equivbench.tasks.base import Batch, Split, TaskData
from equivbench.tasks.forcefield.foreign.calculators import CalculatorModel

REFERENCES = {"gfn2-small": "GFN2-xTB"}
"""What the forces of a data set were computed with."""
_NO_REFERENCE = "no forces of the kind that it was trained on are at hand for these structures"


class ServedCalculator:
    """Looks like an ASE calculator, and asks the network behind ``process``."""

    implemented_properties = ("energy", "forces")

    def __init__(self, process: NetworkProcess) -> None:
        self._process = process
        self.seconds: list[float] = []
        """Of each call, in order."""
        self.atoms: list[int] = []

    def get_forces(self, atoms: Any) -> NDArray[Any]:
        """[atoms, 3] eV/A; raises ``FailedError`` for what are no forces."""
        asked = {"numbers": atoms.get_atomic_numbers(), "positions": atoms.get_positions()}
        if atoms.pbc.any():
            asked |= {"cell": atoms.cell.array, "pbc": np.asarray(atoms.pbc)}
        answer = self._process.ask(asked)
        forces = answer.get("forces")
        name, formula = self._process.name, atoms.get_chemical_formula()
        if forces is None or forces.shape != (len(atoms), 3) or forces.dtype.kind != "f":
            shape = "nothing" if forces is None else f"{forces.shape} ({forces.dtype})"
            raise FailedError(
                f"{name} gives {shape} for the forces on {len(atoms)} atoms of {formula}; "
                f"{(len(atoms), 3)} of floating-point numbers are needed"
            )
        if not np.isfinite(forces).all():
            raise FailedError(f"{name} gives forces on {formula} that are not finite")
        self.seconds.append(float(answer["seconds"]))
        self.atoms.append(len(atoms))
        return forces


class WithoutReference:
    """``split`` with forces of zero, so that the error of a prediction is its own square."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._split)

    @property
    def groups(self) -> Tensor:
        """[samples] those of the split."""
        return self._split.groups

    def collate(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` [n], their forces zero."""
        batch = self._split.collate(indices)
        return {**batch, "forces": torch.zeros_like(batch["forces"])}


def measure_forces(network: PretrainedNetwork, process: NetworkProcess, asked: Asked) -> Outcome:
    """What the network behind ``process`` shows on the test split of its data set."""
    data: TaskData = resolve(DATASETS.get(network.dataset).factory)().load()
    calculator = ServedCalculator(process)
    found = measure_equivariance(
        CalculatorModel(calculator),
        "forcefield",
        split="test" if network.compared else WithoutReference(data.test),
        data=data if network.compared else None,
        samples=asked.samples,
        rotations=asked.rotations,
        group=asked.group,
        symmetry=network.symmetry,
        seed=asked.seed,
    )
    return _outcome(network, data, found, calculator)


def _outcome(
    network: PretrainedNetwork, data: TaskData, found: Measurement, calculator: ServedCalculator
) -> Outcome:
    verdict = found.verdict
    assert verdict is not None  # measured with the floor
    low, high = (None if np.isnan(end) else end for end in found.interval())
    reasons: dict[str, str] = {}
    if low is None:
        reasons |= dict.fromkeys(("share_low", "share_high"), "too few samples for an interval")
    if found.floor is None:
        reasons["floor"] = verdict.reason
    if not network.compared:
        reasons |= {"reference": _NO_REFERENCE, "explained": _NO_REFERENCE}
    return Outcome(
        data=data.card.name,
        data_sha256=data.card.sha256,
        reference=REFERENCES.get(network.dataset, network.dataset) if network.compared else None,
        unit=found.unit,
        samples=found.samples,
        atoms=sum(calculator.atoms) / len(calculator.atoms),
        rotations=found.rotations,
        group=found.group,
        symmetry_verified=None if network.symmetry == "none" else verdict.holds,
        verdict=verdict.reason,
        total=found.total,
        twirled=found.twirled,
        equivariance=found.equivariance,
        share=found.share,
        share_low=low,
        share_high=high,
        floor=found.floor,
        explained=found.explained if network.compared else None,
        seconds=calculator.seconds[WARM_UP:] or calculator.seconds,
        reasons=reasons,
    )
