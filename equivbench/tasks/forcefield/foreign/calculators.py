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
from equivbench.errors import EquivbenchError, FailedError, ModelError
from equivbench.records.reasons import plain_reason


class CalculatorModel(nn.Module):
    """The forces of an ASE ``calculator``, a structure at a time: a molecule in vacuum, a crystal
    in its cell, with the stress where the calculator gives one. ``elements`` are the atomic numbers
    that it knows, if that is known.

    It has no weights here and cannot be trained. Its energies are left out: they have a zero of
    their own.
    """

    requires: Mapping[str, float] = {"cell": 1.0}

    def __init__(self, calculator: Any, elements: Sequence[int] | None = None) -> None:
        super().__init__()
        self.calculator, self.elements = calculator, elements
        self._atoms = required("ase", "an ASE calculator is called", "ase").Atoms

    def __deepcopy__(self, memo: dict[int, Any]) -> CalculatorModel:
        """The same calculator, which has no precision that a cast could change, and may not be
        copied."""
        return CalculatorModel(self.calculator, self.elements)

    def forward(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor,
        cell: Tensor | None = None,
        pbc: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``forces`` [atoms, 3] eV/A and, of structures that repeat in all three directions where
        the calculator gives it, ``stress`` [structures, 3, 3] eV/A^3."""
        starts = np.flatnonzero(np.diff(batch.cpu().numpy())) + 1
        numbers = np.split(z.cpu().numpy(), starts)
        places = np.split(pos.detach().double().cpu().numpy(), starts)
        if cell is None or pbc is None:
            structures = [self._atoms(*each) for each in zip(numbers, places, strict=True)]
        else:
            cells, periods = cell.detach().double().cpu().numpy(), pbc.cpu().numpy()
            structures = [
                self._atoms(own, at, cell=box, pbc=repeats)
                for own, at, box, repeats in zip(numbers, places, cells, periods, strict=True)
            ]
        answers = [self._answer(each) for each in structures]
        found = {"forces": np.concatenate([forces for forces, _ in answers])}
        stresses = [stress for _, stress in answers if stress is not None]
        if len(stresses) == len(answers):
            found["stress"] = np.stack(stresses)
        return {name: torch.from_numpy(each).to(pos.device) for name, each in found.items()}

    def _answer(self, atoms: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """The forces on ``atoms`` and their stress [3, 3], None where it gives none."""
        name = type(self.calculator).__name__
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()  # or the same atoms again would be answered from its memory
        try:
            forces = np.asarray(self.calculator.get_forces(atoms))
            stress = self._stress(atoms) if atoms.pbc.all() else None
        except EquivbenchError:
            raise
        # Someone's code, which may raise anything.
        except Exception as error:
            raise FailedError(
                f"{name} failed on {atoms.get_chemical_formula()}: {type(error).__name__}: "
                f"{plain_reason(error)}"
            ) from error
        wanted = {"forces": (forces, (len(atoms), 3)), "stress": (stress, (3, 3))}
        for output, (found, shape) in wanted.items():
            if found is not None and (found.shape != shape or found.dtype.kind != "f"):
                raise ModelError(
                    f"{name} gives {output} of shape {found.shape} ({found.dtype}) for "
                    f"{len(atoms)} atoms; {shape} of floating-point numbers are needed"
                )
        return forces, stress

    def _stress(self, atoms: Any) -> NDArray[Any] | None:
        """[3, 3] of what it gives in Voigt's order or as it is; some list more than they give."""
        if "stress" not in self.calculator.implemented_properties:
            return None
        try:
            found = np.asarray(self.calculator.get_stress(atoms))
        except NotImplementedError:
            return None
        return found[_VOIGT] if found.shape == (6,) else found


_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
"""Where xx, yy, zz, yz, xz and xy of ASE's stress stand in the matrix."""


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
