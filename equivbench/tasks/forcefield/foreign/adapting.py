"""``adapt``: a network of another package, an ASE calculator or a metatomic model as a model of the
force-field task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from equivbench.errors import UsageError
from equivbench.tasks.forcefield.elements import atomic_numbers
from equivbench.tasks.forcefield.foreign.calculators import (
    CalculatorModel,
    is_calculator,
    is_metatomic,
    metatomic_calculator,
)
from equivbench.tasks.forcefield.foreign.conventions import Call, Key, convention_of
from equivbench.tasks.forcefield.foreign.network import ForeignNetwork, Scale
from equivbench.tasks.forcefield.foreign.units import ENERGIES, LENGTHS, unit_of
from equivbench.tasks.forcefield.foreign.values import Source


def adapt(
    model: object,
    outputs: Key | Mapping[str, Key] | None = None,
    energy: bool | None = None,
    *,
    inputs: Mapping[str, Source] | None = None,
    call: Call | None = None,
    convention: str | None = None,
    elements: Sequence[int | str] | None = None,
    cutoff: float | None = None,
    dense: bool = False,
    padding: int = 0,
    energy_unit: str = "eV",
    length_unit: str = "A",
) -> nn.Module:
    """``model`` of another package as a model of the task ``forcefield``, for
    :func:`measure_equivariance`, :func:`register_model` and ``equivbench measure``.

    A ``torch.nn.Module`` of schnetpack, nequip or MACE is called as its package does, one that
    takes ``z``, ``pos`` and ``batch`` as it is (PyG); the other arguments say what differs. An ASE
    calculator gives its forces a molecule at a time. The page "Measure any network" has a recipe
    for each.

    Parameters
    ----------
    model
        A ``torch.nn.Module``, an ASE calculator or a metatomic model.
    outputs
        Where the network's ``energy`` ([molecules] or [atoms], with or without a last axis of 1)
        and ``forces`` ([atoms, 3]), of crystals its ``stress`` ([molecules, 3, 3]) too, are in what
        it returns: a key, an attribute or a position. One alone is that of the energy (of the
        forces where ``energy`` is False). None: a tensor is known by its shape, others by their
        usual names.
    energy
        True: forces are minus the gradient of the energy by the positions, and the stress is that
        by the strain over the volume. False: they are the network's own. None: its own where it
        gives any forces.
    inputs
        By the network's argument or key: the name of a value (``z``, ``pos``, ``batch``, ``types``,
        ``one_hot``, ``edge_index``, ``sources``, ``targets``, ``vectors``, ``cell``, ``shifts``,
        ``n_atoms``, ``ptr``, ``mask``, ...), or a function of the mapping of all of them. A network
        is shown the images of atoms in a crystal if it takes ``cell``, ``pbc``, ``shifts``,
        ``cell_shifts`` or ``vectors`` by these names.
    call
        ``keywords``, ``mapping`` (one positional mapping of all arguments) or a function of the
        network and that mapping, which returns the outputs.
    convention
        ``schnetpack``, ``nequip`` or ``mace``; None: by the package that the class comes from.
    elements
        Symbols or atomic numbers in the order of the network's types, for ``types`` and
        ``one_hot``; molecules that hold others are left out of a measurement.
    cutoff
        In A, of the edges; None: what the network says itself.
    dense
        Molecules are padded to [molecules, most atoms, ...] instead of concatenated, with
        ``padding`` in the integers and 0 in the positions; outputs by atom come back so.
    energy_unit, length_unit
        ``eV``, ``kcal/mol``, ``kJ/mol``, ``Hartree`` or ``Rydberg``; ``A``, ``Bohr`` or ``nm``. Of
        positions, energies and forces.

    Returns
    -------
    torch.nn.Module
        Called with ``z`` [atoms], ``pos`` [atoms, 3] A, ``batch`` [atoms] and, with a cutoff,
        ``edge_index`` [2, edges] by keyword; returns ``forces`` [atoms, 3] eV/A and, where the
        network gives one, ``energy`` [molecules] eV with its own zero. Of crystals it is called
        with ``cell``, ``pbc`` and ``cell_shifts`` too, and returns ``stress`` [molecules, 3, 3]
        eV/A^3 where there is one. It can be trained, but not with ``compile=True``.

    Raises
    ------
    UsageError
        For what is no network or calculator, unknown names and units, arguments that nothing says
        what they are. When called: ``ModelError`` for outputs of another shape or none,
        ``FailedError`` for an element that the network does not have.
    FailedError
        Where a package that the model needs is not installed.
    """
    numbers = None if elements is None else atomic_numbers(elements)
    if is_metatomic(model) or is_calculator(model):
        said = (outputs, inputs, call, convention, cutoff)
        other_units = (energy_unit, length_unit) != ("eV", "A")
        if any(each is not None for each in said) or dense or other_units:
            raise UsageError(
                "an ASE calculator or metatomic model takes no option but energy and elements"
            )
        if is_metatomic(model):
            return CalculatorModel(metatomic_calculator(model, energy is not False), numbers)
        if energy:
            raise UsageError("an ASE calculator gives forces itself; leave energy out")
        return CalculatorModel(model, numbers)
    if isinstance(model, CalculatorModel | ForeignNetwork):
        raise UsageError("it is adapted already; say all there is to say of it in one call")
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"a {type(model).__name__} is neither a torch.nn.Module nor an ASE calculator; give an "
            "instance of one"
        )
    known = convention_of(model, convention)
    if isinstance(outputs, str | int):
        outputs = {"forces" if energy is False else "energy": outputs}
    for name in outputs or ():
        if name not in ("energy", "forces", "stress"):
            raise UsageError(f"outputs are 'energy', 'forces' and 'stress', not {name!r}")
    known = replace(
        known,
        call=known.call if call is None else call,
        inputs={**known.inputs, **(inputs or {})},
        periodic={
            name: each for name, each in known.periodic.items() if name not in (inputs or {})
        },
        outputs=known.outputs if outputs is None else outputs,
    )
    if numbers is None and (own := known.elements(model)) is not None:
        numbers = atomic_numbers(own)
    return ForeignNetwork(
        model,
        known,
        energy,
        Scale(
            unit_of(energy_unit, ENERGIES, "energy"),
            unit_of(length_unit, LENGTHS, "length"),
            padding if dense else None,
        ),
        numbers,
        known.cutoff(model) if cutoff is None else cutoff,
    )
