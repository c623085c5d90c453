"""Where each force-field data set's file comes from: shipped, generated, or converted once from
published files that the user has.

SPICE (HDF5), the MACE-OFF split (extended XYZ) and MD17 are converted. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from equivbench.environment import required
from equivbench.errors import FailedError
from equivbench.tasks.archives import ArchiveSource, location, must_exist
from equivbench.tasks.forcefield import moses
from equivbench.tasks.forcefield.extended_xyz import frames
from equivbench.tasks.forcefield.spice import build_spice
from equivbench.tasks.forcefield.spice import published as spice_file
from equivbench.tasks.forcefield.table import CHARGED, KCAL_PER_MOL, ConformationBuilder, facts
from equivbench.tasks.molecules import charge_of, identity_of
from equivbench.tasks.storage import USERS_COPY, draw

MACE_OFF_FILES = {"train": "train_large_neut_no_bad_clean.xyz", "test": "test_large_neut_all.xyz"}
MD17_SIZES = {"train": 950, "validation": 50, "test": 1000}
"""Conformations of an MD17 set: 1,000 to learn from, as its authors ask (Christensen & von
Lilienfeld 2020), 1,000 to test."""


def _build_20k(path: Path) -> None:
    for tool in ("rdkit", "tblite"):
        required(tool, f"{path.stem} is generated", "generate")
    from equivbench.tasks.forcefield.generate import generate

    generate(20_000, path, processes=os.cpu_count() or 1)


def _build_100k(path: Path) -> None:
    smiles = moses.moses_smiles()
    for tool in ("rdkit", "tblite"):
        required(tool, f"{path.stem} is generated", "generate")
    from equivbench.tasks.forcefield.generate import generate_beyond

    generate_beyond(100_000, path, processes=os.cpu_count() or 1, further=smiles)


def build_mace_off(out: Path) -> None:
    """``out`` from the train and test files of MACE-OFF23, in eV and A; validation is drawn from
    train by molecule."""
    folder = _mace_off_file("")
    builder = ConformationBuilder()
    for split, file in MACE_OFF_FILES.items():
        must_exist(
            folder / file,
            "MACE_OFF",
            f"the folder with {' and '.join(MACE_OFF_FILES.values())} (10.17863/CAM.107498)",
        )
        for index, frame in enumerate(frames(folder / file)):
            name = frame.info.get("smiles", f"{split} frame {index}")
            identity = identity_of(name)
            own = "validation" if split == "train" and draw(identity) < 0.05 else split
            if frame.charge or charge_of(name):
                builder.left_out[CHARGED] += 1
                continue
            # A molecule may lie in both files as published: its conformations are then two groups.
            label = "test " if split == "test" else ""
            builder.add(
                label + name,
                frame.z,
                frame.pos[None],
                frame.forces[None],
                np.array([frame.energy]),
                own,
                identity=label + identity,
            )
    recipe = {
        "source": "MACE-OFF23 (Kovacs et al. 2023)",
        "labels": "wB97M-D3(BJ)/def2-TZVPPD, those of SPICE, in eV",
        "conformations left out": dict(builder.left_out),
    }
    rule = (
        "test is the published test file; of the published train file validation where "
        "draw(identity_of(SMILES)) < 0.05, else train (draw: first 8 bytes, big-endian, of "
        "SHA-256('split ' + identity) over 2^64; identity_of: that of "
        "equivbench.tasks.molecules); a molecule may be in both, as published"
    )
    table = builder.finish(str(folder))
    builder.warn_of_left_out(str(folder), len(table.counts))
    table.write(
        out,
        *facts(table),
        recipe=recipe,
        licences=USERS_COPY,
        split_rule=rule,
        sources={file: folder / file for file in MACE_OFF_FILES.values()},
    )


def _mace_off_file(name: str) -> Path:
    return location("MACE_OFF", "mace-off") / name


def build_md17(out: Path, trajectory: str) -> None:
    """``out`` from one trajectory of MD17 as torch_geometric names it (``aspirin``, ``revised
    aspirin``), fetched if absent."""
    from torch_geometric.datasets import MD17

    root = _md17_file("")
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
        "conformations left out": dict(builder.left_out),
    }
    rule = (
        "by conformation, since there is one molecule: sorted by draw(name + ' ' + index), the "
        f"first {MD17_SIZES['train']} train, {MD17_SIZES['validation']} validation, "
        f"{MD17_SIZES['test']} test; each conformation is a group of its own, so intervals hold "
        "for this trajectory and say nothing about other molecules"
    )
    table = builder.finish(f"MD17 {trajectory!r}")
    builder.warn_of_left_out(f"MD17 {trajectory!r}", len(table.counts))
    raw = [Path(file) for file in dataset.raw_paths if Path(file).is_file()]
    table.write(
        out,
        *facts(table),
        recipe=recipe,
        licences=USERS_COPY,
        split_rule=rule,
        sources={Path(os.path.relpath(file, root)).as_posix(): file for file in raw},
    )


def _md17_file(name: str) -> Path:
    return location("MD17", "md17") / name


_READ = "equivbench.tasks.forcefield.task:load"


def _source(
    name: str,
    build: Callable[[Path], object] | None = None,
    *arguments: Any,
    read: str = _READ,
    origin: Callable[[str], Path] | None = None,
) -> ArchiveSource:
    return ArchiveSource(name, "forcefield", read, build, arguments, origin)


def md17(molecule: str, revised: str = "") -> ArchiveSource:
    """A molecule of MD17, e.g. ``aspirin`` or ``salicylic-acid``, or with ``revised`` "r" of the
    revised MD17."""
    trajectory = ("revised " if revised else "") + molecule.replace("-", " ")
    build = partial(build_md17, trajectory=trajectory)
    return _source(f"{revised}md17-{molecule}", build, origin=_md17_file)


def _test_set(name: str) -> ArchiveSource:
    return _source(name, None, _source("gfn2-small").path(), read=f"{_READ}_test_set")


gfn2_larger = partial(_test_set, "gfn2-larger")
"""Shipped: larger molecules than any in ``gfn2-small``."""
gfn2_hotter = partial(_test_set, "gfn2-hotter")
"""Shipped: the test molecules of ``gfn2-small``, hotter than any of it."""
_FURTHER = {"larger-molecules": gfn2_larger().path(), "hotter": gfn2_hotter().path()}

gfn2_small = partial(_source, "gfn2-small", None, _FURTHER)
"""The set shipped in the package."""
crystals = partial(_source, "crystals", read="equivbench.tasks.forcefield.task:load_periodic")
"""Shipped: perturbed crystals."""
gfn2_20k = partial(_source, "gfn2-20k", _build_20k, _FURTHER)
"""20,000 samples by the shipped set's generator and seed: its molecules are the first of these, in
the same splits."""
gfn2_100k = partial(_source, "gfn2-100k", _build_100k, _FURTHER, origin=moses.published)
"""100,000 samples, likewise: all that rdkit's molecules give, and then of molecules of MOSES.
Stereoisomers are one molecule here."""
spice = partial(_source, "spice", build_spice, origin=spice_file)
"""SPICE as published."""
mace_off = partial(_source, "mace-off", build_mace_off, origin=_mace_off_file)
"""The MACE-OFF23 split of SPICE."""
