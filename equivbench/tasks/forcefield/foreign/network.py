"""A foreign network as a model of the force-field task: its arguments from a batch of molecules or
crystals, and forces, energies and stress from what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import EquivbenchError, FailedError, ModelError, UsageError
from equivbench.kernels.sums import sum_by, widened
from equivbench.records.reasons import plain_reason
from equivbench.tasks.forcefield.foreign.conventions import Convention, Key
from equivbench.tasks.forcefield.foreign.values import OF_CELLS, OF_EDGES, Box, Source, Values

_TASK_INPUTS = ("z", "pos", "batch", "edge_index", "n_atoms")
_CELL_INPUTS = ("cell", "pbc", "cell_shifts")
"""Those of periodic structures."""
_LONGEST = 300
"""Most characters of somebody's exception."""
_KNOWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "forces": ("forces", "force"),
    "energy": ("energy", "total_energy", "energies"),
    "stress": ("stress",),
}
"""What outputs are usually called, where nobody says so."""


@dataclass(frozen=True)
class Scale:
    """The network's units and its way to lay out molecules."""

    energy: float = 1.0
    """eV in its unit of energy."""
    length: float = 1.0
    """A in its unit of length."""
    padding: int | None = None
    """What fills up dense batches; None: molecules are concatenated."""


class ForeignNetwork(nn.Module):
    """``network`` called as ``convention`` says.

    ``energy``: forces are minus the gradient of the energy (True), the network's own (False), or
    its own where it gives any (None). ``cutoff`` is that of ``edge_index`` in A.
    """

    numbers: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        convention: Convention,
        energy: bool | None,
        scale: Scale,
        numbers: Sequence[int] | None,
        cutoff: float | None,
    ) -> None:
        super().__init__()
        self.network, self.convention, self.scale = network, convention, scale
        self.energy = energy
        self.elements = numbers
        """Atomic numbers of those that it knows; None: it does not say."""
        table = None if numbers is None else torch.tensor(numbers)
        self.register_buffer("numbers", table, persistent=False)
        self._inputs = _arguments(
            network, convention, scale.padding is not None, cutoff is not None
        )
        self._periodic = _periodic_arguments(network, convention, self._inputs)
        of_edges = [each for each in self._inputs.values() if each in OF_EDGES]
        if of_edges and cutoff is None:
            raise UsageError(
                f"{type(network).__name__} takes edges; give their cutoff in A, such as cutoff=5.0"
            )
        requires = {} if cutoff is None else {"edge_index": cutoff}
        if self._periodic or any(each in OF_CELLS for each in self._inputs.values()):
            requires["cell"] = 1.0
        self.requires: Mapping[str, float] = requires

    def forward(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor,
        edge_index: Tensor | None = None,
        cell: Tensor | None = None,
        pbc: Tensor | None = None,
        cell_shifts: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Forces [atoms, 3] eV/A and, where the network gives one, energy [molecules] eV, with the
        network's own zero; of structures that repeat in all three directions the stress [molecules,
        3, 3] eV/A^3 that it gives, or that follows from the energy as the forces do."""
        differentiable = self.training and torch.is_grad_enabled()
        with torch.enable_grad():
            # A leaf: networks that differentiate inside mark it.
            at = (pos.detach() / self.scale.length).requires_grad_(self.energy is not False)
            placed, box, strain = at, None, None
            if cell is not None and pbc is not None:
                lattice = cell.detach() / self.scale.length
                strain = torch.zeros_like(lattice, requires_grad=self.energy is not False)
                stretch = torch.eye(3).to(lattice) + (strain + strain.mT) / 2
                placed = torch.einsum("ni,nij->nj", at, stretch[batch])
                box = Box(lattice @ stretch, pbc, cell_shifts)
            values = Values(z, placed, batch, edge_index, self.numbers, self.scale.padding, box)
            found = self._outputs(self._call(values), values)
            if self.energy or "forces" not in found:
                if "energy" not in found:
                    raise ModelError(
                        f"{self._name} gives no energy, so its forces cannot be derived from one"
                    )
                found |= self._derived(found["energy"], at, strain, differentiable, values)
        energy, length = self.scale.energy, self.scale.length
        unit = {"energy": energy, "forces": energy / length, "stress": energy / length**3}
        return {
            name: (value if differentiable else value.detach()) * unit[name]
            for name, value in found.items()
        }

    @property
    def _name(self) -> str:
        return type(self.network).__name__

    def _call(self, values: Values) -> Any:
        sources = self._inputs if values.box is None else {**self._inputs, **self._periodic}
        arguments = {name: values.of(source) for name, source in sources.items()}
        call = self.convention.call
        try:
            if call == "keywords":
                return self.network(**arguments)
            if call == "mapping":
                return self.network(arguments)
            return call(self.network, arguments)
        except EquivbenchError:
            raise
        # Someone's network, which may raise anything.
        except Exception as error:
            raise FailedError(
                f"{self._name} failed, given {', '.join(arguments)}: {type(error).__name__}: "
                f"{plain_reason(error, _LONGEST)}"
            ) from error

    def _outputs(self, returned: Any, values: Values) -> dict[str, Tensor]:
        """Energy [molecules], forces [atoms, 3] and stress [molecules, 3, 3], those of them that
        are there and wanted, in the network's units."""
        atoms = len(values.plain("z"))
        wanted = ["energy"] if self.energy else ["energy", "forces", *_measurable(values)]
        found = self._picked(returned, atoms)
        if self.energy is False and "forces" not in found:
            raise ModelError(
                f"{self._name} gives no forces but {_said(returned)}; say which output they are, "
                "with outputs={'forces': ...}, or derive them from its energy with energy=True"
            )
        if not found:
            raise ModelError(
                f"{self._name} gives {_said(returned)}, none of them known to be an energy or "
                "forces; say which, with outputs={'energy': ...} or outputs={'forces': ...}"
            )
        kept = {name: found[name] for name in wanted if name in found}
        if "energy" in kept:
            kept["energy"] = self._by_molecule(kept["energy"], values)
        if "forces" in kept and self.scale.padding is not None:
            kept["forces"] = _undone(kept["forces"], values)
        if "stress" in kept:
            shape = (values.molecules, 3, 3)
            if kept["stress"].numel() != 9 * values.molecules:
                raise ModelError(
                    f"{self._name} gives a stress of shape {tuple(kept['stress'].shape)} for "
                    f"{values.molecules} structures; {shape} is needed"
                )
            kept["stress"] = kept["stress"].reshape(shape)
        return kept

    def _picked(self, returned: Any, atoms: int) -> dict[str, Tensor]:
        """The tensors that are named, or known by their names or shape."""
        if isinstance(returned, Tensor):
            named = self.convention.outputs
            vectors = returned.shape[-1:] == (3,) and returned.numel() == 3 * atoms
            padded = self.scale.padding is not None and returned.shape[2:] == (3,)
            name = next(iter(named), "forces" if vectors or padded else "energy")
            return {"energy" if self.energy else name: returned}
        found = {}
        for name, usual in _KNOWN_NAMES.items():
            named_key = self.convention.outputs.get(name)
            keys: tuple[Key, ...] = usual if named_key is None else (named_key,)
            if named_key is None and self.convention.outputs and name != "energy":
                keys = ()  # an output was named, and it is not this one
            values = [_part(returned, key) for key in keys]
            tensor = next((each for each in values if isinstance(each, Tensor)), None)
            if tensor is not None:
                found[name] = tensor
        return found

    def _by_molecule(self, energy: Tensor, values: Values) -> Tensor:
        """[molecules] of an energy that is given by molecule or by atom."""
        if self.scale.padding is not None and energy.shape[:2] == values["mask"].shape:
            energy = _undone(energy, values)
        if energy.dim() > 1 and energy.shape[1:].numel() == 1:
            energy = energy.reshape(len(energy))
        molecules, batch = values.molecules, values.plain("batch")
        if energy.dim() == 0 and molecules == 1:
            return energy.reshape(1)
        if energy.shape == (molecules,):
            return energy
        if energy.shape == batch.shape:
            return sum_by(batch, widened(energy), molecules)
        raise ModelError(
            f"{self._name} gives an energy of shape {tuple(energy.shape)} for {molecules} "
            f"molecules of {len(batch)} atoms; one number a molecule or an atom is needed"
        )

    def _derived(
        self,
        energy: Tensor,
        at: Tensor,
        strain: Tensor | None,
        differentiable: bool,
        values: Values,
    ) -> dict[str, Tensor]:
        """Forces, and where there is a ``strain`` the stress, by autograd."""
        by = (at,) if strain is None else (at, strain)
        try:
            slopes = torch.autograd.grad(energy.sum(), by, create_graph=differentiable)
        except RuntimeError as error:
            raise ModelError(
                f"the energy of {self._name} cannot be differentiated by the positions ({error}); "
                "it must not detach them, nor compute under torch.no_grad"
            ) from error
        found = {"forces": -slopes[0]}
        for name in _measurable(values):
            volume = torch.linalg.det(values["cell"].detach()).abs()
            found[name] = slopes[1] / volume[:, None, None]
        return found


def _measurable(values: Values) -> tuple[str, ...]:
    """``stress`` where every structure repeats in all three directions, else nothing."""
    return ("stress",) if values.box is not None and bool(values.box.pbc.all()) else ()


def _parameters(network: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Those of ``network.forward``; none where it does not tell, as compiled ones may not."""
    try:
        return inspect.signature(network.forward).parameters
    except (TypeError, ValueError):
        return {}


def _arguments(
    network: nn.Module, convention: Convention, dense: bool, edges: bool
) -> dict[str, Source]:
    """What each argument is: as the convention says; by keyword, those of the task's inputs too
    that ``network.forward`` takes by their names."""
    offered = [each for each in _TASK_INPUTS if not (dense and each == "batch")]
    usual = {
        each: each for each in offered if each != "n_atoms" and (edges or each != "edge_index")
    }
    parameters = _parameters(network).values() if convention.call == "keywords" else ()
    if not parameters or any(each.kind == each.VAR_KEYWORD for each in parameters):
        return dict(convention.inputs or usual)
    found = dict(convention.inputs)
    for each in parameters:
        needed = each.default is each.empty and each.kind != each.VAR_POSITIONAL
        if each.name in found:
            continue
        if each.name in usual or (needed and each.name in (*offered, *_CELL_INPUTS)):
            found[each.name] = each.name
        elif needed:
            raise UsageError(
                f"{type(network).__name__} takes {each.name!r}, which is no input of the task; say "
                f"what it is, such as inputs={{{each.name!r}: 'pos'}} (docs/foreign.md)"
            )
    return found


def _periodic_arguments(
    network: nn.Module, convention: Convention, taken: Mapping[str, Source]
) -> dict[str, Source]:
    """What the arguments of periodic structures are beyond, or instead of, those that are
    ``taken``: as the convention says; by keyword, those of the task's that ``network.forward`` may
    do without."""
    found = dict(convention.periodic)
    if convention.call == "keywords":
        named = _parameters(network)
        found |= {each: each for each in _CELL_INPUTS if each in named and each not in taken}
    return found


def _part(returned: Any, key: Key) -> Any:
    """The part of a mapping, a sequence or an object, or None."""
    try:
        if isinstance(key, str) and not isinstance(returned, Mapping):
            return getattr(returned, key, None)
        return returned[key]
    except (KeyError, IndexError, TypeError):
        return None


def _said(returned: Any) -> str:
    if isinstance(returned, Mapping):
        return f"the outputs {', '.join(map(str, returned))}"
    if isinstance(returned, tuple | list):
        return f"{len(returned)} outputs in a {type(returned).__name__}"
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)}"
    return f"a {type(returned).__name__}"


def _undone(value: Tensor, values: Values) -> Tensor:
    """[atoms, ...] of a dense ``value`` [molecules, most atoms, ...]; another shape as it is."""
    return value[values["mask"]] if value.shape[:2] == values["mask"].shape else value
