"""What a foreign network can be given of a batch of molecules, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from equivbench.errors import FailedError, UsageError, unknown_name
from equivbench.tasks.forcefield.elements import symbol

Source = str | Callable[[Mapping[str, Tensor]], object]
"""What an argument is: the name of a value, or a function of all of them."""


class Values(Mapping[str, Tensor]):
    """Values of one batch, each made when it is first asked for.

    ``z`` [atoms], ``pos`` [atoms, 3] in the network's unit, ``batch`` [atoms] sorted molecule
    index; ``edge_index`` [2, edges] (source, target), where a cutoff was given; ``box``: of
    periodic structures. ``numbers`` [elements]: the network's own elements, in the order of its
    types, if it has such. ``padding``: what fills up the integers of dense batches; None: there are
    none.
    """

    def __init__(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor,
        edge_index: Tensor | None,
        numbers: Tensor | None,
        padding: int | None,
        box: Box | None = None,
    ) -> None:
        self._plain = {"z": z, "pos": pos, "batch": batch}
        self._edges, self._numbers, self._padding = edge_index, numbers, padding
        self.box = box
        self.molecules = int(batch[-1]) + 1

    def __getitem__(self, name: str) -> Tensor:
        if name not in VALUES:
            raise KeyError(name)
        value = VALUES[name](self)
        return self.padded(value) if self._padding is not None and name in _OF_ATOMS else value

    def __iter__(self) -> Iterator[str]:
        return iter(VALUES)

    def __len__(self) -> int:
        return len(VALUES)

    def of(self, source: Source) -> object:
        """The value that ``source`` is; raises ``UsageError`` for an unknown name."""
        if not isinstance(source, str):
            return source(self)
        if source not in VALUES:
            raise unknown_name("value", source, VALUES)
        return self[source]

    @cached_property
    def counts(self) -> Tensor:
        """[molecules] atoms of each."""
        return torch.bincount(self._plain["batch"], minlength=self.molecules)

    @cached_property
    def place(self) -> tuple[Tensor, Tensor]:
        """(molecule, number within it) of each atom."""
        batch = self._plain["batch"]
        first = self.counts.cumsum(0) - self.counts
        return batch, torch.arange(len(batch), device=batch.device) - first[batch]

    def padded(self, value: Tensor) -> Tensor:
        """[molecules, most atoms, ...] of ``value`` [atoms, ...]: integers filled up with the
        padding, others with 0 or False."""
        fill = (self._padding or 0) if value.dtype == torch.int64 else 0
        shape = (self.molecules, int(self.counts.max()), *value.shape[1:])
        return value.new_full(shape, fill).index_put(self.place, value)

    def plain(self, name: str) -> Tensor:
        """``z``, ``pos`` or ``batch``, atom by atom."""
        return self._plain[name]

    def types(self) -> Tensor:
        """[atoms] index of each atom's element among the network's."""
        if self._numbers is None:
            raise UsageError(
                "the network's elements are not known; give them in the order of its types, such "
                "as elements=['H', 'C', 'N', 'O']"
            )
        z, numbers = self._plain["z"], self._numbers
        table = torch.full((256,), -1, device=z.device)
        table[numbers] = torch.arange(len(numbers), device=z.device)
        found = table[z]
        if bool((found < 0).any()):
            unknown = ", ".join(symbol(int(each)) for each in torch.unique(z[found < 0]))
            raise FailedError(
                f"the network has no {unknown}, only {', '.join(map(symbol, numbers.tolist()))}, "
                "so it cannot be measured on molecules that hold it"
            )
        return found

    def one_hot(self) -> Tensor:
        """[atoms, elements] in the dtype of the positions."""
        types = self.types()
        assert self._numbers is not None  # or there were no types
        found: Tensor = torch.nn.functional.one_hot(types, len(self._numbers))
        return found.to(self._plain["pos"].dtype)

    def edges(self) -> Tensor:
        """[2, edges]."""
        if self._edges is None:
            raise UsageError("the network takes edges; give their cutoff in A, such as cutoff=5.0")
        return self._edges

    def vectors(self) -> Tensor:
        """[edges, 3] from source, or the image of it, to target."""
        source, target = self.edges()
        pos = self._plain["pos"]
        vectors = pos[target] - pos[source]
        return vectors if self.box is None else vectors - self.shifts()

    def cell(self) -> Tensor:
        """[molecules, 3, 3], zeros where nothing is periodic."""
        return self.empty(self.molecules, 3, 3) if self.box is None else self.box.cell

    def pbc(self) -> Tensor:
        """[molecules, 3]."""
        return self.cell().new_zeros(self.molecules, 3).bool() if self.box is None else self.box.pbc

    def cell_shifts(self) -> Tensor:
        """[edges, 3] in the dtype of the positions."""
        if self.box is None or self.box.shifts is None:
            return self.empty(self.edges().shape[1], 3)
        return self.box.shifts.to(self._plain["pos"].dtype)

    def shifts(self) -> Tensor:
        """[edges, 3] from the source to the image of it."""
        lattice = self.cell()[self._plain["batch"][self.edges()[1]]]
        return torch.einsum("ek,eki->ei", self.cell_shifts(), lattice)

    def empty(self, *shape: int) -> Tensor:
        """Zeros like the positions."""
        return self._plain["pos"].new_zeros(shape)


@dataclass(frozen=True)
class Box:
    """What is periodic in a batch."""

    cell: Tensor
    """[molecules, 3, 3] in the network's unit, rows are the lattice vectors."""
    pbc: Tensor
    """[molecules, 3] bool."""
    shifts: Tensor | None
    """[edges, 3] int64 lattice vectors by which the sources are moved, where there are edges."""


VALUES: Mapping[str, Callable[[Values], Tensor]] = {
    "z": lambda values: values.plain("z"),
    "pos": lambda values: values.plain("pos"),
    "batch": lambda values: values.plain("batch"),
    "types": Values.types,
    "one_hot": Values.one_hot,
    "n_atoms": lambda values: values.counts,
    "ptr": lambda values: torch.nn.functional.pad(values.counts.cumsum(0), (1, 0)),
    "mask": lambda values: values.padded(torch.ones_like(values.plain("z"), dtype=torch.bool)),
    "edge_index": Values.edges,
    "edge_index_reversed": lambda values: values.edges().flip(0),
    "sources": lambda values: values.edges()[0],
    "targets": lambda values: values.edges()[1],
    "vectors": Values.vectors,
    "cell": Values.cell,
    "pbc": Values.pbc,
    "shifts": Values.shifts,
    "cell_shifts": Values.cell_shifts,
    "no_shifts": lambda values: values.empty(values.edges().shape[1], 3),
    "no_cell": lambda values: values.empty(values.molecules, 3, 3),
    "no_pbc": lambda values: values.empty(values.molecules, 3).bool(),
}
"""Names that ``eb.adapt(inputs=...)`` knows."""
OF_EDGES = (
    "edge_index",
    "edge_index_reversed",
    "sources",
    "targets",
    "vectors",
    "shifts",
    "cell_shifts",
    "no_shifts",
)
"""Those for which a cutoff is needed."""
OF_CELLS = ("cell", "pbc", "shifts", "cell_shifts", "vectors")
"""Those that a network which is given them can see a crystal by."""
_OF_ATOMS = ("z", "pos", "types", "one_hot")
"""Those that are padded in dense batches."""
