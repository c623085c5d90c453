"""ASE calculators and metatomic models as models of the force-field task. ASE and metatomic are
imported where they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equivbench.environment import required
from equivbench.errors import FailedError, ModelError
from equivbench.records.reasons import plain_reason


class CalculatorModel(nn.Module):
    """The forces of an ASE ``calculator``, a molecule at a time, in vacuum. ``elements`` are the
    atomic numbers that it knows, if that is known.

    It has no weights here and cannot be trained. Its energies are left out: they have a zero of
    their own.
    """

    requires: Mapping[str, float] = {}

    def __init__(self, calculator: Any, elements: Sequence[int] | None = None) -> None:
        super().__init__()
        self.calculator, self.elements = calculator, elements
        self._molecule = required("ase", "an ASE calculator is called", "ase").Atoms

    def __deepcopy__(self, memo: dict[int, Any]) -> CalculatorModel:
        """The same calculator, which has no precision that a cast could change, and may not be
        copied."""
        return CalculatorModel(self.calculator, self.elements)

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        """``forces`` [atoms, 3] eV/A."""
        starts = np.flatnonzero(np.diff(batch.cpu().numpy())) + 1
        numbers = np.split(z.cpu().numpy(), starts)
        places = np.split(pos.detach().double().cpu().numpy(), starts)
        forces = [self._forces(*each) for each in zip(numbers, places, strict=True)]
        return {"forces": torch.from_numpy(np.concatenate(forces)).to(pos.device)}

    def _forces(self, numbers: NDArray[np.int64], pos: NDArray[np.float64]) -> NDArray[Any]:
        atoms, name = self._molecule(numbers, pos), type(self.calculator).__name__
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()  # or the same atoms again would be answered from its memory
        try:
            found = np.asarray(self.calculator.get_forces(atoms))
        # Someone's code, which may raise anything.
        except Exception as error:
            raise FailedError(
                f"{name} failed on {atoms.get_chemical_formula()}: {type(error).__name__}: "
                f"{plain_reason(error)}"
            ) from error
        if found.shape != pos.shape or found.dtype.kind != "f":
            raise ModelError(
                f"{name} gives forces of shape {found.shape} ({found.dtype}) for {len(pos)} atoms; "
                f"{pos.shape} of floating-point numbers are needed"
            )
        return found


def is_calculator(value: object) -> bool:
    """Whether ``value`` is an ASE calculator, which can be told without ASE."""
    return not isinstance(value, type) and all(
        hasattr(value, name) for name in ("get_forces", "implemented_properties")
    )


def is_metatomic(value: object) -> bool:
    """Whether ``value`` is a model in metatomic's format, loaded or made in this process."""
    # TorchScript gives its modules one class and keeps the name of theirs.
    return "AtomisticModel" in (type(value).__name__, getattr(value, "original_name", None))


def metatomic_calculator(model: object, conservative: bool = True) -> Any:
    """metatomic's own calculator of ``model``, a file (``Path``) or a model.

    ``conservative``: forces are minus the gradient of its energy, else those that it predicts
    beside it. Raises ``FailedError`` for a file that is missing or no model, and where metatomic is
    not installed.
    """
    if isinstance(model, Path) and not model.is_file():
        raise FailedError(f"{model} is not there; give the file of an exported metatomic model")
    package = required("metatomic_ase", "a metatomic model is called", "metatomic")
    try:
        return package.MetatomicCalculator(
            model, non_conservative=False if conservative else "forces", uncertainty_threshold=None
        )
    # Files of any kind, and models with extensions that are not here.
    except Exception as error:
        name = model.name if isinstance(model, Path) else type(model).__name__
        raise FailedError(
            f"{name} cannot be used as a metatomic model: {type(error).__name__}: "
            f"{plain_reason(error)}"
        ) from error
