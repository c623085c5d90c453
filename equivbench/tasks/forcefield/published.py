"""Published sets that a user has: SPICE (HDF5), the MACE-OFF split (extended XYZ) and MD17,
converted once to flat archives."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from equivbench.errors import FailedError
from equivbench.tasks.forcefield.archive import Builder
from equivbench.tasks.forcefield.extxyz import frames
from equivbench.tasks.forcefield.storage import write
from equivbench.tasks.forcefield.units import BOHR, HARTREE, KCAL_PER_MOL
from equivbench.tasks.sources import location, must_exist, sha256_of
from equivbench.tasks.splits import draw

MACE_OFF_FILES = {"train": "train_large_neut_no_bad_clean.xyz", "test": "test_large_neut_all.xyz"}
LICENCES = {
    "data": "as its publisher states; this is the user's own copy, and equivbench does not distribute it"
}
MD17_SIZES = {"train": 950, "validation": 50, "test": 1000}
"""Conformations of an MD17 set: 1,000 to learn from, as its authors ask (Christensen & von
Lilienfeld 2020), 1,000 to test."""


def build_spice(out: Path) -> None:
    """``out`` from ``SPICE.hdf5``: a group a molecule, bohr, Hartree, Hartree/bohr; split by the
    molecule's SMILES."""
    try:
        import h5py
    except ImportError as error:
        raise FailedError(
            "SPICE is read with h5py, which is not installed; pip install 'equivbench[spice]'"
        ) from error
    source = location("SPICE", "SPICE.hdf5")
    must_exist(source, "SPICE", "the file from github.com/openmm/spice-dataset/releases")
    builder = Builder()
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
    write(builder.finish(str(source)), out, recipe=recipe, licences=LICENCES)


def build_mace_off(out: Path) -> None:
    """``out`` from the train and test files of MACE-OFF23, in eV and A; validation is drawn from
    train by SMILES."""
    folder = location("MACE_OFF", "mace-off")
    builder = Builder()
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
        "test is the published test file; of the published train file validation where draw(SMILES) < 0.05, else train "
        "(draw: first 8 bytes, big-endian, of SHA-256('split ' + SMILES) over 2^64); a molecule may be in both, as published"
    )
    write(builder.finish(str(folder)), out, recipe=recipe, licences=LICENCES, split_rule=rule)


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
            f"MD17 {trajectory!r} is neither under {root} nor could be fetched ({type(error).__name__}: {error}); put the "
            "published file where torch_geometric expects it and name the folder in EQUIVBENCH_DATA_MD17"
        ) from error
    order = sorted(range(len(dataset)), key=lambda i: draw(f"{trajectory} {i}"))
    builder = Builder()
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
        "source": f"torch_geometric.datasets.MD17, {trajectory}: {len(dataset)} conformations of one molecule",
        "labels": "as published, kcal/mol to eV; torch_geometric keeps total energies in float32 (about 1 meV)",
    }
    rule = (
        f"by conformation, since there is one molecule: sorted by draw(name + ' ' + index), the first {MD17_SIZES['train']} "
        f"train, {MD17_SIZES['validation']} validation, {MD17_SIZES['test']} test; each conformation is a group of its own, so "
        "intervals hold for this trajectory and say nothing about other molecules"
    )
    write(
        builder.finish(f"MD17 {trajectory!r}"),
        out,
        recipe=recipe,
        licences=LICENCES,
        split_rule=rule,
    )
