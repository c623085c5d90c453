"""What a SMILES says of a molecule without a chemistry toolkit: its total charge, and an identity
that no numbering and no order of its atoms changes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
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
_VALENCES: Mapping[str, tuple[int, ...]] = {
    "B": (3,),
    "C": (4,),
    "N": (3, 5),
    "O": (2,),
    "P": (3, 5),
    "S": (2, 4, 6),
    **dict.fromkeys(("F", "Cl", "Br", "I"), (1,)),
}
"""To which of these an atom outside of brackets is filled up with hydrogens, the least that its
bonds do not exceed (OpenSMILES, section 3.1.5)."""


def charge_of(smiles: str) -> int:
    """The sum of the formal charges."""
    return sum(_charge(found["charge"]) for found in _ATOM.finditer(smiles))


@lru_cache(maxsize=1 << 14)
def identity_of(smiles: str) -> str:
    """A text that is the same for all SMILES of one molecule, whatever the order of their atoms,
    their atom maps, and which hydrogens they write.

    Elements and valences of atoms, which are bonded, and the total charge decide; handedness and
    where double bonds are drawn do not, so that stereoisomers and resonance forms are one, whether
    or not they say which they are. Of what is no SMILES it is the text without atom maps.
    """
    graph = _graph(smiles)
    if graph is None:
        return _MAP.sub("]", smiles)
    symbols, labels, neighbours = graph
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
    formula = "".join(f"{symbol}{number}" for symbol, number in sorted(Counter(symbols).items()))
    return f"{formula} {charge_of(smiles):+d} {_digest(*sorted(labels))}"


def first_isomers(smiles: Iterable[str]) -> dict[str, str]:
    """By each of the ``smiles`` the first of them that is the same molecule or a stereoisomer of
    it."""
    first: dict[str, str] = {}
    return {each: first.setdefault(identity_of(each), each) for each in smiles}


ISOMERS_TOGETHER = (
    "by molecule, stereoisomers together",
    "the canonical SMILES of the first of them in the order of the set's candidates",
)
"""What is split where :func:`first_isomers` are its names, and these, for
:func:`equivbench.tasks.storage.split_rule`."""


def _graph(smiles: str) -> tuple[list[str], list[str], list[list[int]]] | None:
    """(element, label and neighbours of each atom, all hydrogens among them), or None for what is
    no SMILES."""
    atoms: list[re.Match[str]] = []
    neighbours: list[list[int]] = []
    # Of each atom the orders of its bonds to those that are written.
    orders: list[int] = []
    branches: list[int | None] = []
    rings: dict[str, tuple[int, int]] = {}
    before: int | None = None
    order, place = 1, 0

    def bond(one: int, other: int) -> None:
        for atom, partner in ((one, other), (other, one)):
            neighbours[atom].append(partner)
            orders[atom] += order

    while place < len(smiles):
        token = _TOKEN.match(smiles, place)
        if token is None:
            return None
        place = token.end()
        if token["symbol"] or token["plain"]:
            if len(token["hydrogens"] or "") > 1:
                return None
            atoms.append(token)
            neighbours.append([])
            orders.append(0)
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
    symbols: list[str] = []
    labels: list[str] = []
    for number, atom in enumerate(atoms):
        symbol, others, used = atom["symbol"] or atom["plain"], neighbours[number], orders[number]
        # An aromatic carbon, or a nitrogen with nothing but the ring, has one double bond in it,
        # unless one is written.
        bare = symbol == "n" and len(others) == 2 and atom["hydrogens"] is None
        used += (symbol == "c" or bare) and used == len(others)
        hydrogens = _hydrogens(atom, used)
        for _ in range(hydrogens):
            others.append(len(neighbours))
            neighbours.append([number])
        symbols.append(symbol.title())
        # Hydrogens and the orders of bonds: the same sum in all resonance forms.
        labels.append(f"{atom['isotope'] or ''}{symbol.title()} {used + hydrogens}")
    hydrogens = len(neighbours) - len(atoms)
    return symbols + ["H"] * hydrogens, labels + ["H 1"] * hydrogens, neighbours


def _hydrogens(atom: re.Match[str], used: int) -> int:
    """Those that ``atom``, with bonds of so many orders, has beside the atoms that are written."""
    if atom["symbol"]:
        # [CH] has one, [C] none.
        return int(atom["hydrogens"] or atom["hydrogens"] is not None)
    # Of aromatic atoms carbon alone has some that are not written.
    valences = _VALENCES.get("C" if atom["plain"] == "c" else atom["plain"], ())
    return next((each - used for each in valences if each >= used), 0)


def _charge(text: str | None) -> int:
    if not text:
        return 0
    signs = text.rstrip("0123456789")
    size = int(text[len(signs) :] or len(signs))
    return size if signs[0] == "+" else -size


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
