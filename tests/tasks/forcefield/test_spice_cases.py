"""SPICE files that differ from a sound one in one respect: each is a sentence with the group's
name, or is left out and counted on the card."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spice_cases import (
    CHARGED,
    METHANOL,
    NEUTRAL_OF_IONS,
    assigned,
    replaced,
    stating,
    write_changed,
    write_sound,
)

from equivbench.cli.main import main
from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.forcefield.sources import spice
from equivbench.tasks.forcefield.table import BOHR, LAYOUT


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EQUIVBENCH_DATA_SPICE", str(tmp_path / "spice.hdf5"))
    return tmp_path / "spice.hdf5"


def converted() -> tuple[Any, dict[str, Any]]:
    table, card = LAYOUT.read(spice().prepare())
    return table, card


def test_a_sound_file_is_used_whole(source: Path) -> None:
    write_sound(source)
    table, card = converted()
    assert sum(table.sizes().values()) == 80
    assert card["recipe"]["conformations left out"] == {}
    assert card["sources"]["spice.hdf5"]["bytes"] == source.stat().st_size


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "fewer gradients": (
        replaced("m0/dft_total_gradient", np.zeros((1, 3, 3), np.float32)),
        r"disagree in shape .*dft_total_gradient \[1, 3, 3\]",
    ),
    "fewer numbers": (
        replaced("m0/atomic_numbers", np.array([8, 1], np.int16)),
        r"disagree in shape \(atomic_numbers \[2\]",
    ),
    "fewer energies": (replaced("m0/dft_total_energy", np.zeros(1)), "disagree in shape"),
    "no atoms": (replaced("m0/atomic_numbers", np.zeros(0, np.int16)), "disagree in shape"),
    "number 264": (assigned("m0/atomic_numbers", 0, 264), "has the atomic number 264"),
    "number 0": (assigned("m0/atomic_numbers", 0, 0), "has the atomic number 0"),
    "no gradient": (lambda file: file["m0"].pop("dft_total_gradient"), "has no dft_total_gradient"),
    "an array for a group": (replaced("m0", np.zeros(3)), "has no atomic_numbers and no"),
    "groups for arrays": (
        lambda file: (
            file["m0"].pop("dft_total_energy"),
            file["m0"].create_group("dft_total_energy"),
        ),
        "holds arrays that disagree in shape",
    ),
    "texts for numbers": (
        replaced("m0/dft_total_energy", np.array([b"1.0", b"2.0"])),
        r"holds what is no numbers \(dft_total_energy\)",
    ),
    "a number for a SMILES": (replaced("m0/smiles", np.zeros(1)), "cannot be read"),
    "a SMILES that is no text": (replaced("m0/smiles", np.array([b"\xff"])), "cannot be read"),
    "a cell": (lambda file: file["m0"].create_dataset("cell", data=np.eye(3)), "is periodic"),
    "some units": (
        stating(conformations="angstrom", dft_total_energy="kJ/mol"),
        "gives conformations in angstrom, dft_total_energy in kj/mol, and does not say the unit "
        "of dft_total_gradient",
    ),
    "an unknown unit": (
        stating(conformations="furlong", dft_total_energy="eV", dft_total_gradient="eV/nm"),
        "gives conformations in 'furlong'; known are bohr",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_spice_is_refused_by_the_groups_name(
    source: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, complaint = REFUSED[case]
    write_changed(source, change)
    with pytest.raises(FailedError, match=f"spice.hdf5: group 'm0' .*{complaint}"):
        spice().prepare()
    assert not spice().path().exists()
    with pytest.raises(SystemExit) as stop:
        main(["data", "prepare", "spice"])
    assert stop.value.code == 3
    assert capsys.readouterr().err.count("\n") == 1


LEFT_OUT: dict[str, tuple[Callable[[Any], None], str]] = {
    "coincident atoms": (
        assigned("m0/conformations", (0, 1), np.zeros(3) + 1e-3),
        "with atoms nearer than 0.4 A",
    ),
    "a huge gradient": (assigned("m0/dft_total_gradient", 0, 50.0), "with a force above 51.4 eV/A"),
    "no number": (
        assigned("m0/dft_total_energy", 0, np.nan),
        "with values that are not finite",
    ),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_cannot_be_real_is_left_out_and_counted(source: Path, case: str) -> None:
    change, reason = LEFT_OUT[case]

    def spoil(file: Any) -> None:
        if case == "coincident atoms":
            file["m0/conformations"][0, 0] = 0.0
        change(file)

    write_changed(source, spoil)
    with pytest.warns(EquivbenchWarning, match=f"1 conformations left out .1 {reason}.; 79 are"):
        table, card = converted()
    assert sum(table.sizes().values()) == 79
    assert card["recipe"]["conformations left out"] == {reason: 1}


def test_units_that_are_all_stated_are_converted(source: Path) -> None:
    written = write_sound(source)
    table, _ = converted()
    scaled = {
        "conformations": BOHR / 10,
        "dft_total_energy": 2625.499639,
        "dft_total_gradient": 1.0,
    }

    def change(file: Any) -> None:
        scaled["dft_total_gradient"] = scaled["dft_total_energy"] / (BOHR / 10)
        for group in file.values():
            for name, factor in scaled.items():
                group[name][...] = group[name][()] * factor
        stating(
            conformations="nm", dft_total_energy="kJ / mol", dft_total_gradient="kJ/mol/nanometer"
        )(file)

    write_changed(source, change)
    again, _ = converted()
    assert len(written) == 40
    for name in ("pos", "forces", "energy"):
        # float32 positions and gradients, and ten digits of the factor.
        assert np.allclose(again[name], table[name], rtol=1e-5, atol=1e-5)


def test_units_as_published_are_those_that_are_meant(source: Path) -> None:
    write_changed(
        source,
        stating(
            conformations="bohr", dft_total_energy="hartree", dft_total_gradient="Hartree / Bohr"
        ),
    )
    assert sum(converted()[0].sizes().values()) == 80


def test_charged_molecules_are_left_out_and_neutral_pairs_of_ions_are_not(source: Path) -> None:
    write_sound(source, [*CHARGED, *NEUTRAL_OF_IONS])
    with pytest.warns(EquivbenchWarning, match="24 conformations left out .24 of charged"):
        table, card = converted()
    assert card["recipe"]["conformations left out"] == {"of charged molecules": 24}
    assert (table["z"] == 11).sum() == 24
    assert 7 not in table["z"]


def test_one_molecule_under_several_atom_maps_is_one_group_of_the_split(source: Path) -> None:
    write_sound(source, METHANOL)
    table, _ = converted()
    is_carbon = np.add.reduceat(table["z"] == 6, table.first)
    methanols = is_carbon.astype(bool)
    assert methanols.sum() == 2 * len(METHANOL)
    assert len(set(table["molecule"][methanols].tolist())) == 1
    assert len(set(table["split"][methanols].tolist())) == 1
    assert len(table["names"]) == 41
