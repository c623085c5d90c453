"""The force-field task: forces (and energies) of molecules and crystals from atomic numbers,
positions and cells, its data in memory, and the best linear predictor of forces."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equivbench.errors import EquivbenchWarning, FailedError, UsageError, unknown_name
from equivbench.kernels.neighbours import edges_within
from equivbench.kernels.periodic_neighbours import periodic_edges_within
from equivbench.tasks.archives import read_card
from equivbench.tasks.base import SPLITS, Batch, Card, Split, Task, TaskData, mean_square
from equivbench.tasks.forcefield.conservative import ConservativeForces, energy_by_rotation
from equivbench.tasks.forcefield.declarations import BOARD_UNIT, FIELDS, OPTIONS, REPORTED
from equivbench.tasks.forcefield.elements import SYMBOLS
from equivbench.tasks.forcefield.table import LAYOUT, PERIODIC_FIELDS, PERIODIC_LAYOUT
from equivbench.tasks.splits import RaggedSplit, Subset, ragged_data
from equivbench.tasks.storage import RaggedTable

FORCE_WEIGHT, ENERGY_WEIGHT = 100.0, 4.0
"""Weights of the two parts of the objective, those of EScAIP (Qu & Krishnapriyan 2024)."""

CUTOFF = 5.0
"""A: as far as the networks of the small presets see."""
_DERIVED = ("edge_index", "max_neighbours", "n_atoms", "cell")
"""What a model may require."""
_CENTRES = 12
_NEAREST = 0.7
"""A: no two atoms are closer, so no basis function is centred below."""
_FITTED = 512
"""Samples that the coefficients are fitted on: some 30,000 force components, for 12 coefficients a
pair of elements."""
_RIDGE = 1e-4
"""Of the normal matrix's mean diagonal: picks the least coefficients where pairs of elements are
rare or missing."""


class ForceField(Task):
    """Predict the force on every atom; the board metric is |F - F_hat|^2 in (eV/A)^2, averaged over
    atoms."""

    name = "forcefield"
    prediction = "forces"
    index_field = "batch"
    board_unit = BOARD_UNIT
    reported: ClassVar[tuple[str, ...]] = REPORTED
    options: ClassVar[Mapping[str, tuple[str, ...]]] = OPTIONS
    advice: ClassVar[str] = (
        "; one that needs edges says so with an attribute requires = {'edge_index': 5.0} (a cutoff "
        "in A), and a network of another package, or one that predicts energies, is made one with "
        "equivbench.adapt or `measure --as energy` (docs/foreign.md)"
    )
    fields = FIELDS

    def adapt(self, model: nn.Module, variant: Mapping[str, str]) -> nn.Module:
        """The model itself, or with ``forces=conservative`` its forces replaced by minus its
        energy's gradient."""
        chosen = variant.get("forces", "direct")
        if chosen not in self.options["forces"]:
            raise unknown_name("value of forces", chosen, self.options["forces"])
        if chosen == "direct":
            return model
        return ConservativeForces(model)

    def assemble(
        self, batch: Batch, noise: Batch, requires: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs z, pos, batch and, where required, edge_index, n_atoms, cell and pbc; targets
        forces, energy and, of data that have it, stress.

        ``requires`` may hold ``edge_index`` (the cutoff, A), with it ``max_neighbours``, and, which
        have no parameter (any number asks for them), ``n_atoms`` and ``cell``; anything else is a
        ``UsageError``. With ``cell`` periodic data give ``cell`` and ``pbc``, edges with the images
        of atoms, and ``cell_shifts`` with them; others give what they give without it.
        """
        unknown = set(requires) - set(_DERIVED)
        if unknown:
            raise unknown_name("derived input of task forcefield", min(unknown), _DERIVED)
        if "max_neighbours" in requires and "edge_index" not in requires:
            raise UsageError(
                "max_neighbours needs edge_index: require both, e.g. {'edge_index': 5.0, "
                "'max_neighbours': 20}"
            )
        inputs = {name: batch[name] for name in ("z", "pos", "batch")}
        periodic = "cell" in requires and "cell" in batch
        if periodic:
            inputs |= {name: batch[name] for name in ("cell", "pbc")}
        if "edge_index" in requires:
            limit = requires.get("max_neighbours")
            cutoff, most = float(requires["edge_index"]), None if limit is None else int(limit)
            atoms = batch["pos"], batch["batch"]
            if periodic:
                inputs["edge_index"], inputs["cell_shifts"] = periodic_edges_within(
                    *atoms, batch["cell"], batch["pbc"], cutoff, most
                )
            else:
                inputs["edge_index"] = edges_within(*atoms, cutoff, most)
        if "n_atoms" in requires:
            # With it a model knows the number of molecules from a shape: batch.max() + 1 waits for
            # a GPU and breaks a compiled graph.
            molecules = torch.zeros_like(batch["energy"], dtype=torch.int64)
            inputs["n_atoms"] = molecules.index_add(
                0, batch["batch"], torch.ones_like(batch["batch"])
            )
        targets = ("forces", "energy", *(("stress",) if "stress" in batch else ()))
        return inputs, {name: batch[name] for name in targets}

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        """100 times the mean over atoms of |F - F_hat| plus 4 times the mean over molecules of |E -
        E_hat| per atom.

        The energy part is left out where the model gives no energy. EScAIP's weights; energy per
        atom is our reading.
        """
        loss: Tensor = (
            FORCE_WEIGHT
            * torch.linalg.vector_norm(outputs["forces"] - targets["forces"], dim=-1).mean()
        )
        if "energy" in outputs:
            error = (outputs["energy"] - targets["energy"]).abs()
            n_atoms = torch.zeros_like(error).index_add(
                0, inputs["batch"], error.new_ones(len(inputs["batch"]))
            )
            loss = loss + ENERGY_WEIGHT * (error / n_atoms).mean()
        return loss

    def rotational_gradient(
        self, variant: Mapping[str, str], requires: Mapping[str, float]
    ) -> Callable[[Batch, Batch], Tensor]:
        """That of [molecules, 3] eV where forces are conservative (:func:`energy_by_rotation`); of
        networks that take cells ``UsageError`` too: the forces are no gradient by these."""
        if variant.get("forces") != "conservative":
            raise UsageError(
                "the rotational gradient of an energy is read from forces that are its gradient; "
                "add --forces conservative"
            )
        if "cell" in requires:
            raise UsageError(
                "the rotational gradient of a periodic structure's energy has a part by the cell, "
                "which forces do not tell; take a network without the requirement cell"
            )
        return energy_by_rotation

    def samples_in(self, batch: Batch) -> int:
        """Number of molecules."""
        return len(batch["energy"])

    def strata(self, batch: Batch) -> tuple[tuple[str, ...], Tensor] | None:
        """The atoms by element symbol, or None where a structure as a whole is judged (its
        stress)."""
        if self.prediction != ForceField.prediction:
            return None
        other, z = len(SYMBOLS), batch["z"]
        # No element has the number 0, or one above theirs.
        return (*SYMBOLS, "other"), torch.where(z > 0, z - 1, other).clamp(max=other)

    def within_reach(self, model: nn.Module, split: Split) -> Split:
        """The molecules whose elements are all among ``model.elements`` (atomic numbers), where it
        has such; how many are left out is a warning.

        Raises ``FailedError`` where that is all of them.
        """
        elements: Sequence[int] | None = getattr(model, "elements", None)
        if elements is None:
            return split
        atomic_numbers, unknown = torch.tensor(elements), []
        for indices in torch.split(torch.arange(len(split)), 4096):
            batch = split.collate(indices)
            strange = (~torch.isin(batch["z"], atomic_numbers)).long()
            unknown.append(torch.zeros_like(indices).index_add(0, batch["batch"], strange))
        chosen = (torch.cat(unknown) == 0).nonzero().flatten()
        what = "crystals" if "cell" in batch else "molecules"
        said = f"{what} have elements that the network does not know"
        if len(chosen) == 0:
            raise FailedError(f"all {said}, so there is nothing to measure it on")
        if len(chosen) == len(split):
            return split
        left_out = f"{len(split) - len(chosen)} of {len(split)} {said}, and are left out"
        warnings.warn(left_out, EquivbenchWarning, stacklevel=2)
        return Subset(split, chosen)

    def not_shown(self, requires: Mapping[str, float], split: Split) -> str | None:
        """That the structures are periodic, to a network that requires no ``cell``."""
        if "cell" in requires or len(split) == 0:
            return None
        if "cell" not in split.collate(torch.arange(1)):
            return None
        return (
            "the structures are periodic and the network takes no cell, so that it sees the atoms "
            "of each cell as a molecule (requires={'cell': 1} asks for cells)"
        )

    def baseline(self, split: Split) -> float:
        """Mean over atoms of |F|^2: the error of predicting no force, which is the mean force of
        every orientation; likewise of another output that is judged."""
        return mean_square(split, self.prediction, lambda batch: len(batch[self.prediction]))

    def untrained(self, data: TaskData, seed: int = 0) -> dict[str, nn.Module]:
        """``linear``: central pair forces (:class:`PairForces`); none without a training split, and
        of other outputs than forces."""
        if self.prediction != ForceField.prediction or len(data.train) == 0:
            return {}
        return {"linear": fit_pair_forces(data.train, seed)}


class ForceFieldSplit(RaggedSplit):
    """One split of molecules or crystals with their forces, and ``energy`` [samples of the table]
    eV less that of their atoms (:func:`referenced`)."""

    def __init__(self, table: RaggedTable, chosen: Tensor, energy: NDArray[np.float32]) -> None:
        super().__init__(table, chosen)
        self._energy = torch.from_numpy(energy)[chosen]
        self._periodic = {
            name: torch.from_numpy(table[name])[chosen]
            for name in PERIODIC_FIELDS
            if name in table.columns
        }

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        """The samples at ``indices`` [n]: z, pos, batch and forces with molecules concatenated,
        energy [n]; of crystals cell, pbc and stress [n, ...] too."""
        batch, rows = self.items_of(indices)
        return {
            "z": self.flat["z"][rows].long(),
            "pos": self.flat["pos"][rows],
            "batch": batch,
            "forces": self.flat["forces"][rows],
            "energy": self._energy[indices],
            **{name: each[indices] for name, each in self._periodic.items()},
        }


def fit_reference(table: RaggedTable) -> NDArray[np.float64]:
    """[256] eV by atomic number: the energies of atoms that fit the training split's total energies
    best in least squares.

    0 for elements that the training split lacks, and the least-norm solution for directions that it
    leaves open.
    """
    parts, atoms = list(table.parts()), table.counts
    numbers = sum(
        (np.bincount(table["z"][items], minlength=256) for _, items in parts), np.zeros(256)
    )
    elements = np.flatnonzero(numbers)
    column = np.zeros(256, dtype=np.int64)
    column[elements] = np.arange(len(elements))
    train = table["split"] == SPLITS.index("train")
    counts = np.empty((train.sum(), len(elements)))
    filled = 0
    for samples, items in parts:
        chosen = train[samples]
        owner = np.repeat(np.arange(len(chosen)), atoms[samples])
        cells = np.bincount(
            owner * len(elements) + column[table["z"][items]],
            minlength=len(chosen) * len(elements),
        )
        found = cells.reshape(len(chosen), len(elements))[chosen]
        counts[filled : filled + len(found)] = found
        filled += len(found)
    reference = np.zeros(256)
    reference[elements] = np.linalg.lstsq(counts, table["energy"][train], rcond=None)[0]
    return reference


def referenced(table: RaggedTable, reference: NDArray[np.float64]) -> NDArray[np.float32]:
    """[samples] eV: energies less those of their atoms, ``reference`` [256] eV by atomic number."""
    first, energy = table.first, np.empty(len(table["energy"]), dtype=np.float32)
    for samples, items in table.parts():
        of_atoms = np.add.reduceat(reference[table["z"][items]], first[samples] - items.start)
        energy[samples] = table["energy"][samples] - of_atoms
    return energy


def load(path: Path, out_of_distribution: Mapping[str, Path] | None = None) -> TaskData:
    """The data set at ``path``, energies referenced per element on its training split.

    ``out_of_distribution`` are the files of further test sets by name, referenced likewise. Raises
    ``FailedError`` if a file or its card is missing, cut short or changed.
    """
    table, card = LAYOUT.read(path)
    reference = fit_reference(table)
    further = {name: LAYOUT.read(file)[0] for name, file in (out_of_distribution or {}).items()}
    return replace(
        ragged_data(table, card, path.stem, _splits_of(table, reference)),
        out_of_distribution={
            name: _splits_of(each, reference)(each, torch.arange(len(each.counts)))
            for name, each in further.items()
        },
    )


def load_periodic(path: Path) -> TaskData:
    """The periodic data set at ``path``, energies referenced per element on its training split, if
    it has one; raises as :func:`load`."""
    table, card = PERIODIC_LAYOUT.read(path)
    return ragged_data(table, card, path.stem, _splits_of(table, fit_reference(table)))


def _splits_of(
    table: RaggedTable, reference: NDArray[np.float64]
) -> Callable[[RaggedTable, Tensor], Split]:
    return partial(ForceFieldSplit, energy=referenced(table, reference))


def load_test_set(path: Path, of: Path) -> TaskData:
    """The further test set at ``path`` as the test split of the data set ``of``, whose other
    splits stay; raises as :func:`load`."""
    data, card = load(of, {"test": path}), read_card(path)
    test = data.out_of_distribution["test"]
    return TaskData(
        data.train,
        data.validation,
        test,
        Card(path.stem, card["version"], card["sha256"], {**data.card.sizes, "test": len(test)}),
    )


class PairForces(nn.Module):
    """F_i = sum_j sum_k c[z_i z_j, k] phi_k(r_ij) (r_i - r_j) / r_ij, phi_k Gaussians of the
    distance up to ``CUTOFF``.

    O(3)-equivariant and conservative. ``coefficients`` is [pairs of elements * basis functions],
    eV/A, and ``kinds`` [256] maps atomic numbers to elements counted from 0; those that the fit did
    not see count as one.
    """

    coefficients: Tensor
    kinds: Tensor

    def __init__(self, coefficients: Tensor, kinds: Tensor) -> None:
        super().__init__()
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("kinds", kinds)

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor, **_: Tensor) -> dict[str, Tensor]:
        """``forces`` [atoms, 3] eV/A."""
        target, column, values, directions = _terms(self.kinds[z], pos, batch)
        strength = (values * self.coefficients.to(pos)[column]).sum(1)
        return {
            "forces": torch.zeros_like(pos).index_add(0, target, strength[:, None] * directions)
        }


def fit_pair_forces(split: Split, seed: int) -> PairForces:
    """Least squares over the force components of at most 512 samples of ``split``, drawn with
    ``seed``."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:_FITTED]
    elements = torch.unique(
        torch.cat([split.collate(indices)["z"] for indices in torch.split(order, 64)])
    )
    kinds = torch.full((256,), len(elements))
    kinds[elements] = torch.arange(len(elements))
    size = (len(elements) + 1) * (len(elements) + 2) // 2 * _CENTRES
    every = torch.arange(len(elements) + 1)
    columns = [_columns(every, kind).flatten() for kind in every]
    normal, right = (
        torch.zeros(size, size, dtype=torch.float64),
        torch.zeros(size, dtype=torch.float64),
    )
    for indices in torch.split(order, 64):
        batch = split.collate(indices)
        seen, forces = kinds[batch["z"]], batch["forces"].double()
        target, column, values, directions = _terms(seen, batch["pos"].double(), batch["batch"])
        for axis in range(3):
            design = torch.zeros(len(forces) * size, dtype=torch.float64)
            cells = target[:, None] * size + column
            design.index_add_(0, cells.flatten(), (values * directions[:, axis, None]).flatten())
            # The rows of an atom's element have entries in the columns of its pairs alone.
            for kind in torch.unique(seen).tolist():
                own, its = seen == kind, columns[kind]
                rows = design.reshape(len(forces), size)[own][:, its]
                normal[its[:, None], its] += rows.T @ rows
                right[its] += rows.T @ forces[own, axis]
    normal.diagonal().add_(_RIDGE * normal.diagonal().mean())
    return PairForces(torch.linalg.solve(normal, right), kinds)


def _terms(kinds: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(target atom [edges], coefficient [edges, K], basis function [edges, K], unit vector from
    source to target [edges, 3])."""
    source, target = edges_within(pos, batch, CUTOFF, None)
    vectors = pos[target] - pos[source]
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    centres = torch.linspace(_NEAREST, CUTOFF, _CENTRES, dtype=pos.dtype, device=pos.device)
    values = torch.exp(-0.5 * ((lengths - centres) / (centres[1] - centres[0])).square())
    # Zero with its slope at the cutoff.
    values = values * (1 - (lengths / CUTOFF).square()).square()
    return target, _columns(kinds[source], kinds[target]), values, vectors / lengths


def _columns(first: Tensor, second: Tensor) -> Tensor:
    """[pairs, K] coefficients of pairs of such kinds, whichever comes first."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    pair = high * (high + 1) // 2 + low
    return pair[:, None] * _CENTRES + torch.arange(_CENTRES, device=pair.device)
