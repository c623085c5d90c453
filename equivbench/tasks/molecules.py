"""What a SMILES says of a molecule without a chemistry toolkit: its total charge, and an identity
that no numbering and no order of its atoms changes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import lru_cache

_BRACKET = (
    r"\[(?P<isotope>\d*)(?P<symbol>[A-Z][a-z]?|[a-z]{1,2}|\*)(?P<hand>@*(?:TH|AL|SP|TB|OH)?\d*)"
    r"(?:H(?P<hydrogens>\d*))?(?P<charge>\++\d*|-+\d*)?(?::(?P<number>\d+))?\]"
)
_TOKEN = re.compile(
    rf"{_BRACKET}|(?P<plain>Br|Cl|[BCNOPSFI]|[bcnops]|\*)|(?P<ring>%\d\d|\d)|(?P<other>[-=#$:/\\~().])"
)
_ATOM = re.compile(_BRACKET)
_MAP = re.compile(r":\d+\]")
MOST_ROUNDS = 128
"""Bonds across which atoms are told apart by what surrounds them: enough for every molecule of 256
atoms, and a bound on the work for a chain of thousands."""
_ORDERS = {"=": 2, "#": 3, "$": 4}


def charge_of(smiles: str) -> int:
    """The sum of the formal charges."""
    return sum(_charge(found["charge"]) for found in _ATOM.finditer(smiles))


@lru_cache(maxsize=1 << 14)
def identity_of(smiles: str) -> str:
    """A text that is the same for all SMILES of one molecule, whatever the order of their atoms and
    their atom maps.

    Elements and valences of atoms, which are bonded, and the total charge decide; handedness and
    where double bonds are drawn do not, so that stereoisomers and resonance forms are one, if both
    write the same hydrogens. Of what is no SMILES it is the text without atom maps.
    """
    graph = _graph(smiles)
    if graph is None:
        return _MAP.sub("]", smiles)
    labels, neighbours = graph
    # Weisfeiler & Leman 1968: an atom's label takes in those of its neighbours until no more atoms
    # differ.
    kinds = 0
    for _ in range(MOST_ROUNDS):
        if len({*labels}) <= kinds:
            break
        kinds = len({*labels})
        labels = [
            _digest(label, *sorted(labels[other] for other in others))
            for label, others in zip(labels, neighbours, strict=True)
        ]
    return f"{_formula(smiles)} {charge_of(smiles):+d} {_digest(*sorted(labels))}"


def _graph(smiles: str) -> tuple[list[str], list[list[int]]] | None:
    """(label of each atom, its neighbours), or None for what is no SMILES."""
    atoms: list[re.Match[str]] = []
    neighbours: list[list[int]] = []
    # Of each atom its hydrogens and the orders of its bonds: the same in all resonance forms.
    valence: list[int] = []
    branches: list[int | None] = []
    rings: dict[str, tuple[int, int]] = {}
    before: int | None = None
    order, place = 1, 0

    def bond(one: int, other: int) -> None:
        for atom, partner in ((one, other), (other, one)):
            neighbours[atom].append(partner)
            valence[atom] += order

    while place < len(smiles):
        token = _TOKEN.match(smiles, place)
        if token is None:
            return None
        place = token.end()
        if token["symbol"] or token["plain"]:
            atoms.append(token)
            neighbours.append([])
            # [CH] has one hydrogen, [C] none.
            valence.append(int(token["hydrogens"] or token["hydrogens"] is not None))
            if before is not None:
                bond(before, len(atoms) - 1)
            before, order = len(atoms) - 1, 1
        elif token["ring"]:
            if before is None:
                return None
            number = token["ring"].removeprefix("%")
            if number in rings:
                other, opened = rings.pop(number)
                order = max(order, opened)
                bond(other, before)
            else:
                rings[number] = before, order
            order = 1
        elif token["other"] == "(":
            branches.append(before)
        elif token["other"] == ")":
            if not branches:
                return None
            before = branches.pop()
        elif token["other"] == ".":
            before = None
        else:
            order = _ORDERS.get(token["other"], 1)
    if rings or branches or not atoms:
        return None
    labels = []
    for atom, others, used in zip(atoms, neighbours, valence, strict=True):
        symbol = atom["symbol"] or atom["plain"]
        # An aromatic carbon, or a nitrogen with nothing but the ring, has one double bond in it,
        # unless one is written.
        ring = symbol == "c" or (symbol == "n" and len(others) == 2)
        used += ring and used == len(others)
        labels.append(f"{atom['isotope'] or ''}{symbol.title()} {used}")
    return labels, neighbours


def _formula(smiles: str) -> str:
    symbols = Counter(
        (found["symbol"] or found["plain"]).title()
        for found in _TOKEN.finditer(smiles)
        if found["symbol"] or found["plain"]
    )
    return "".join(f"{symbol}{number}" for symbol, number in sorted(symbols.items()))


def _charge(text: str | None) -> int:
    if not text:
        return 0
    signs = text.rstrip("0123456789")
    size = int(text[len(signs) :] or len(signs))
    return size if signs[0] == "+" else -size


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
