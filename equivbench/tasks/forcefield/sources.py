"""Where each force-field data set's file comes from: shipped, generated, or converted once from
published files that the user has.

SPICE (HDF5), the MACE-OFF split (extended XYZ) and MD17 are converted. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.tasks.forcefield.table import (
    BOHR,
    HARTREE,
    KCAL_PER_MOL,
    NUMBERS,
    ConformationBuilder,
    facts,
)
from equivbench.tasks.storage import (
    USERS_COPY,
    ArchiveSource,
    draw,
    location,
    must_exist,
    required,
    sha256_of,
)

MACE_OFF_FILES = {"train": "train_large_neut_no_bad_clean.xyz", "test": "test_large_neut_all.xyz"}
MD17_SIZES = {"train": 950, "validation": 50, "test": 1000}
"""Conformations of an MD17 set: 1,000 to learn from, as its authors ask (Christensen & von
Lilienfeld 2020), 1,000 to test."""
_PAIR = re.compile(r"""([^\s=]+)=(?:"([^"]*)"|'([^']*)'|(\S+))""")


def _build_20k(path: Path) -> None:
    for tool in ("rdkit", "tblite"):
        required(tool, f"{path.stem} is generated", "generate")
    from equivbench.tasks.forcefield.generate import generate

    generate(20_000, path, processes=os.cpu_count() or 1)


def build_spice(out: Path) -> None:
    """``out`` from ``SPICE.hdf5``: a group a molecule, bohr, Hartree, Hartree/bohr; split by the
    molecule's SMILES."""
    h5py = required("h5py", "SPICE is read", "spice")
    source = location("SPICE", "SPICE.hdf5")
    must_exist(source, "SPICE", "the file from github.com/openmm/spice-dataset/releases")
    builder = ConformationBuilder()
    subsets: dict[str, int] = {}
    try:
        with h5py.File(source, "r") as file:
            for key, group in file.items():
                gradient = np.asarray(group["dft_total_gradient"], dtype=np.float64)
                name = group["smiles"].asstr()[0] if "smiles" in group else key
                subset = group["subset"].asstr()[0] if "subset" in group else "unnamed"
                subsets[subset] = subsets.get(subset, 0) + len(gradient)
                builder.add(
                    name,
                    np.asarray(group["atomic_numbers"]),
                    np.asarray(group["conformations"], dtype=np.float64) * BOHR,
                    -gradient * (HARTREE / BOHR),
                    np.asarray(group["dft_total_energy"], dtype=np.float64) * HARTREE,
                )
    except (OSError, KeyError, ValueError) as error:
        raise FailedError(
            f"{source} is not SPICE as published, or is cut short ({error}); fetch it again"
        ) from error
    recipe = {
        "source": f"SPICE (Eastman et al. 2023), {source.name}, SHA-256 {sha256_of(source)}",
        "labels": "wB97M-D3(BJ)/def2-TZVPPD; force = minus dft_total_gradient",
        "conformations per subset, before leaving out NaN": subsets,
    }
    table = builder.finish(str(source))
    table.write(out, *facts(table), recipe=recipe, licences=USERS_COPY)


def build_mace_off(out: Path) -> None:
    """``out`` from the train and test files of MACE-OFF23, in eV and A; validation is drawn from
    train by SMILES."""
    folder = location("MACE_OFF", "mace-off")
    builder = ConformationBuilder()
    for split, file in MACE_OFF_FILES.items():
        must_exist(
            folder / file,
            "MACE_OFF",
            f"the folder with {' and '.join(MACE_OFF_FILES.values())} (10.17863/CAM.107498)",
        )
        for index, frame in enumerate(frames(folder / file)):
            name = frame.info.get("smiles", f"{split} frame {index}")
            own = "validation" if split == "train" and draw(name) < 0.05 else split
            # A molecule may lie in both files as published: its conformations are then two groups.
            label = f"test {name}" if split == "test" else name
            builder.add(
                label, frame.z, frame.pos[None], frame.forces[None], np.array([frame.energy]), own
            )
    recipe = {
        "source": "MACE-OFF23 (Kovacs et al. 2023), "
        + ", ".join(
            f"{file} SHA-256 {sha256_of(folder / file)}" for file in MACE_OFF_FILES.values()
        ),
        "labels": "wB97M-D3(BJ)/def2-TZVPPD, those of SPICE, in eV",
    }
    rule = (
        "test is the published test file; of the published train file validation where "
        "draw(SMILES) < 0.05, else train (draw: first 8 bytes, big-endian, of SHA-256('split ' + "
        "SMILES) over 2^64); a molecule may be in both, as published"
    )
    table = builder.finish(str(folder))
    table.write(out, *facts(table), recipe=recipe, licences=USERS_COPY, split_rule=rule)


def build_md17(out: Path, trajectory: str) -> None:
    """``out`` from one trajectory of MD17 as torch_geometric names it (``aspirin``, ``revised
    aspirin``), fetched if absent."""
    from torch_geometric.datasets import MD17

    root = location("MD17", "md17")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            dataset = MD17(str(root), trajectory)
    except Exception as error:  # the download and the parsing may raise anything
        raise FailedError(
            f"MD17 {trajectory!r} is neither under {root} nor could be fetched "
            f"({type(error).__name__}: {error}); put the published file where torch_geometric "
            "expects it and name the folder in EQUIVBENCH_DATA_MD17"
        ) from error
    order = sorted(range(len(dataset)), key=lambda i: draw(f"{trajectory} {i}"))
    builder = ConformationBuilder()
    start = 0
    for split, size in MD17_SIZES.items():
        for i in order[start : start + size]:
            frame: Any = dataset[i]
            builder.add(
                f"{trajectory} {i}",
                frame.z.numpy(),
                frame.pos.numpy()[None],
                frame.force.numpy()[None] * KCAL_PER_MOL,
                frame.energy.numpy().reshape(1).astype(np.float64) * KCAL_PER_MOL,
                split,
            )
        start += size
    recipe = {
        "source": f"torch_geometric.datasets.MD17, {trajectory}: {len(dataset)} conformations of "
        "one molecule",
        "labels": "as published, kcal/mol to eV; torch_geometric keeps total energies in float32 "
        "(about 1 meV)",
    }
    rule = (
        "by conformation, since there is one molecule: sorted by draw(name + ' ' + index), the "
        f"first {MD17_SIZES['train']} train, {MD17_SIZES['validation']} validation, "
        f"{MD17_SIZES['test']} test; each conformation is a group of its own, so intervals hold "
        "for this trajectory and say nothing about other molecules"
    )
    table = builder.finish(f"MD17 {trajectory!r}")
    table.write(out, *facts(table), recipe=recipe, licences=USERS_COPY, split_rule=rule)


@dataclass(frozen=True)
class Frame:
    """One structure: z [atoms]; pos (A) and forces (eV/A) [atoms, 3]; energy (eV); the header's
    other values as text."""

    z: NDArray[np.uint8]
    pos: NDArray[np.float64]
    forces: NDArray[np.float64]
    energy: float
    info: dict[str, str]


def frames(path: Path) -> Iterator[Frame]:
    """The frames of ``path``, read one at a time.

    Raises ``FailedError`` with the line number for a file that is missing, cut short or not of this
    format.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            number = 0
            while count := lines.readline():
                if count.strip():
                    header = lines.readline()
                    body = [lines.readline() for _ in range(int(count))]
                    if not header or not all(body):
                        raise EOFError
                    yield _frame(header, body)
                    number += len(body) + 1
                number += 1
    except OSError as error:
        raise FailedError(
            f"{path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except EOFError as error:
        raise FailedError(
            f"{path} ends inside the frame that starts at line {number + 1}; fetch the file again"
        ) from error
    except (ValueError, KeyError, IndexError) as error:
        raise FailedError(
            f"the frame at line {number + 1} of {path} is not extended XYZ with energy and forces "
            f"({type(error).__name__}: {error}); check the file"
        ) from error


def _frame(header: str, body: list[str]) -> Frame:
    info = {key: quoted or single or bare for key, quoted, single, bare in _PAIR.findall(header)}
    columns = _columns(info.pop("Properties"))
    rows = [line.split() for line in body]
    table = {name: [row[columns[name]] for row in rows] for name in ("species", "pos", "forces")}
    return Frame(
        z=np.array([NUMBERS[symbol] for [symbol] in table["species"]], dtype=np.uint8),
        pos=np.array(table["pos"], dtype=np.float64).reshape(-1, 3),
        forces=np.array(table["forces"], dtype=np.float64).reshape(-1, 3),
        energy=float(info.pop("energy")),
        info=info,
    )


def _columns(properties: str) -> dict[str, slice]:
    """Columns of each property of ``species:S:1:pos:R:3:...``."""
    words = properties.split(":")
    found: dict[str, slice] = {}
    start = 0
    for name, width in zip(words[::3], words[2::3], strict=True):
        found[name] = slice(start, start + int(width))
        start += int(width)
    return found


_READ = "equivbench.tasks.forcefield.task:load"


def _source(
    name: str, build: Callable[[Path], object] | None = None, *arguments: Any, read: str = _READ
) -> ArchiveSource:
    return ArchiveSource(name, "forcefield", read, build, arguments)


def md17(molecule: str, revised: str = "") -> ArchiveSource:
    """A molecule of MD17, e.g. ``aspirin`` or ``salicylic-acid``, or with ``revised`` "r" of the
    revised MD17."""
    trajectory = ("revised " if revised else "") + molecule.replace("-", " ")
    return _source(f"{revised}md17-{molecule}", partial(build_md17, trajectory=trajectory))


def _test_set(name: str) -> ArchiveSource:
    return _source(name, None, _source("gfn2-small").path(), read=f"{_READ}_test_set")


gfn2_larger = partial(_test_set, "gfn2-larger")
"""Shipped: larger molecules than any in ``gfn2-small``."""
gfn2_hotter = partial(_test_set, "gfn2-hotter")
"""Shipped: the test molecules of ``gfn2-small``, hotter than any of it."""
_FURTHER = {"larger-molecules": gfn2_larger().path(), "hotter": gfn2_hotter().path()}

gfn2_small = partial(_source, "gfn2-small", None, _FURTHER)
"""The set shipped in the package."""
gfn2_20k = partial(_source, "gfn2-20k", _build_20k, _FURTHER)
"""20,000 samples by the shipped set's generator and seed: its molecules are the first of these, in
the same splits."""
spice = partial(_source, "spice", build_spice)
"""SPICE as published."""
mace_off = partial(_source, "mace-off", build_mace_off)
"""The MACE-OFF23 split of SPICE."""
