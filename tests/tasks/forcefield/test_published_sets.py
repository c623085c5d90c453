"""Readers of published force-field sets, on small files that these tests write in the published
formats."""

from pathlib import Path

import numpy as np
import pytest

from equivbench.errors import FailedError
from equivbench.tasks.base import SPLITS
from equivbench.tasks.forcefield import sources
from equivbench.tasks.forcefield.sources import frames, mace_off, md17, spice
from equivbench.tasks.forcefield.table import LAYOUT, ConformationBuilder
from equivbench.tasks.storage import draw, read_card, split_of

HARTREE_EV, BOHR_A, KCAL_EV = 27.2113862460, 0.5291772109, 0.0433641043
"""Written out again, so that a slip in the library's constants shows."""
Z = np.array([8, 1, 1])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("SPICE", "MACE_OFF", "MD17"):
        monkeypatch.delenv(f"EQUIVBENCH_DATA_{name}", raising=False)
    return tmp_path / "cache"


def write_spice(
    path: Path, molecules: int = 30
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A file like SPICE-1.1.4.hdf5: a group a molecule, with conformations, energies and gradients
    in atomic units."""
    h5py = pytest.importorskip("h5py")
    generator = np.random.default_rng(0)
    written = {}
    with h5py.File(path, "w") as file:
        for index in range(molecules):
            group = file.create_group(f"{index:09d}")
            smiles = f"[O:1]([H:2])[H:3].{index}"
            pos, gradient = generator.standard_normal((2, 4, 3, 3)).astype(np.float32)
            energy = generator.standard_normal(4) - 76
            group.create_dataset("smiles", data=[smiles], dtype=h5py.string_dtype())
            group.create_dataset(
                "subset",
                data=["SPICE PubChem Set 1 Single Points Dataset v1.2"],
                dtype=h5py.string_dtype(),
            )
            group.create_dataset("atomic_numbers", data=Z.astype(np.int16))
            group.create_dataset("conformations", data=pos)
            group.create_dataset("dft_total_energy", data=energy)
            group.create_dataset("dft_total_gradient", data=gradient)
            group.create_dataset("formation_energy", data=energy)
            written[smiles] = (pos, gradient, energy)
    return written


def test_spice_is_converted_to_ev_and_a_and_split_by_molecule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_spice(tmp_path / "SPICE.hdf5")
    monkeypatch.setenv("EQUIVBENCH_DATA_SPICE", str(tmp_path / "SPICE.hdf5"))
    table, card = LAYOUT.read(spice().prepare())
    assert set(table["names"].tolist()) == {name.encode() for name in written}
    for index, name in enumerate(table["names"]):
        pos, gradient, energy = written[name.decode()]
        rows = np.repeat(table["molecule"], table["n_atoms"]) == index
        # float32 storage.
        assert np.allclose(table["pos"][rows].reshape(4, 3, 3), pos * BOHR_A, rtol=1e-6)
        assert np.allclose(
            table["forces"][rows].reshape(4, 3, 3), -gradient * HARTREE_EV / BOHR_A, rtol=1e-6
        )
        assert np.allclose(
            table["energy"][table["molecule"] == index], energy * HARTREE_EV, rtol=1e-9
        )
        assert {SPLITS[code] for code in table["split"][table["molecule"] == index]} == {
            split_of(name.decode())
        }
    assert "SPICE PubChem Set 1" in str(card["recipe"])
    data = spice().load()
    assert sum(len(data.split(name)) for name in SPLITS) == 120


def test_a_conformation_with_a_nan_label_is_left_out() -> None:
    builder = ConformationBuilder()
    names = ["train", "validation", "test"]
    for name in names:
        builder.add(
            name, Z, np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), np.array([0.0, np.nan]), name
        )
    table = builder.finish("here")
    assert table.sizes() == dict.fromkeys(SPLITS, 1)
    assert len(table["z"]) == 9


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_cut_spice_file_is_a_failure_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    source = tmp_path / "SPICE.hdf5"
    write_spice(source)
    source.write_bytes(source.read_bytes()[: int(kept * source.stat().st_size)])
    monkeypatch.setenv("EQUIVBENCH_DATA_SPICE", str(source))
    with pytest.raises(FailedError, match=r"SPICE\.hdf5 is not SPICE as published"):
        spice().prepare()
    assert not spice().path().exists()


def write_mace_off(folder: Path, *, extra_columns: bool = False) -> None:
    """Files like those of MACE-OFF23: extended XYZ in eV and A with smiles and config_type."""
    generator = np.random.default_rng(1)
    for count, file in (
        (120, "train_large_neut_no_bad_clean.xyz"),
        (10, "test_large_neut_all.xyz"),
    ):
        lines = []
        for index in range(count):
            properties = "species:S:1:pos:R:3:forces:R:3" + (":mbis:R:2" if extra_columns else "")
            smiles = f"[O:1]([H:2])[H:3].{file[:5]}{index // 2}"
            kind = 'config_type="DES370K Monomers"'
            header = f'Properties={properties} {kind} smiles="{smiles}" '
            lines += ["3", header + f'total_charge=0 energy={-2081.5 - index} pbc="F F F"']
            for symbol, row in zip("OHH", generator.standard_normal((3, 6)), strict=True):
                lines.append(
                    f"{symbol} "
                    + " ".join(f"{value:.8f}" for value in row)
                    + (" 0.5 0.25" if extra_columns else "")
                )
        (folder / file).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("extra_columns", [False, True])
def test_the_mace_off_split_is_kept_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra_columns: bool
) -> None:
    write_mace_off(tmp_path, extra_columns=extra_columns)
    monkeypatch.setenv("EQUIVBENCH_DATA_MACE_OFF", str(tmp_path))
    table, card = LAYOUT.read(mace_off().prepare())
    sizes = table.sizes()
    assert sizes["test"] == 10
    assert sizes["train"] + sizes["validation"] == 120
    first = next(frames(tmp_path / "train_large_neut_no_bad_clean.xyz"))
    assert np.allclose(table["pos"][:3], first.pos)
    assert np.allclose(table["forces"][:3], first.forces)
    assert table["energy"][0] == -2081.5
    assert table["z"][:3].tolist() == Z.tolist()
    assert first.info["config_type"] == "DES370K Monomers"
    validation = {
        name
        for name in table["names"].tolist()
        if draw(name.decode()) < 0.05 and not name.startswith(b"test")
    }
    assert validation == {
        table["names"][i] for i in table["molecule"][table["split"] == SPLITS.index("validation")]
    }
    assert "published test file" in card["split_rule"]
    assert len(mace_off().load().train) == sizes["train"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "3\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nO 0 0 0 0 0 0\n",
            "ends inside the frame that starts at line 1",
        ),
        (
            "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nO 0 0 0 0 0\n",
            "the frame at line 1",
        ),
        ("1\nProperties=species:S:1:pos:R:3 energy=1\nO 0 0 0\n", "forces"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3\nO 0 0 0 0 0 0\n", "energy"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nQq 0 0 0 0 0 0\n", "Qq"),
        ("hello\n", "line 1"),
    ],
)
def test_a_broken_extended_xyz_file_is_named_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "broken.xyz"
    path.write_text(text)
    with pytest.raises(FailedError, match=complaint):
        list(frames(path))


def test_a_frame_in_the_middle_that_is_broken_is_found_by_its_line(tmp_path: Path) -> None:
    good = "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nO 0 0 0 0 0 0\n"
    path = tmp_path / "broken.xyz"
    path.write_text(good + "\n" + good + good.replace("O 0", "O zero"))
    with pytest.raises(FailedError, match="line 8"):
        list(frames(path))


@pytest.mark.parametrize("revised", [False, True])
def test_md17_comes_through_torch_geometric_split_by_conformation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revised: bool
) -> None:
    generator = np.random.default_rng(2)
    pos, forces = generator.standard_normal((2, 2100, 3, 3))
    energy = generator.standard_normal(2100) - 400
    if revised:
        raw = tmp_path / "raw" / "rmd17" / "npz_data" / "rmd17_aspirin.npz"
        arrays = {"nuclear_charges": Z, "coords": pos, "energies": energy, "forces": forces}
    else:
        raw = tmp_path / "aspirin" / "raw" / "md17_aspirin.npz"
        arrays = {"z": Z, "R": pos, "E": energy[:, None], "F": forces}
    raw.parent.mkdir(parents=True)
    np.savez(raw, **arrays)
    monkeypatch.setenv("EQUIVBENCH_DATA_MD17", str(tmp_path))
    source = md17("aspirin", "r" if revised else "")
    table, card = LAYOUT.read(source.prepare())
    assert table.sizes() == sources.MD17_SIZES
    assert len(set(table["molecule"].tolist())) == 2000
    assert "by conformation" in card["split_rule"]
    index = int(table["names"][table["molecule"][5]].split()[-1])
    assert np.allclose(table["forces"][15:18], forces[index] * KCAL_EV, rtol=1e-6, atol=1e-7)
    # torch_geometric keeps energies in float32: 3e-5 kcal/mol at 400 kcal/mol.
    assert table["energy"][5] == pytest.approx(energy[index] * KCAL_EV, abs=3e-6)


@pytest.mark.parametrize("source", [spice, mace_off])
def test_a_set_that_the_user_lacks_says_where_to_name_it(source: object) -> None:
    with pytest.raises(FailedError, match="EQUIVBENCH_DATA_"):
        source().prepare()  # type: ignore[operator]


def test_a_prepared_set_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mace_off(tmp_path)
    monkeypatch.setenv("EQUIVBENCH_DATA_MACE_OFF", str(tmp_path))
    before = read_card(mace_off().prepare())
    (tmp_path / "test_large_neut_all.xyz").unlink()
    assert read_card(mace_off().prepare()) == before
