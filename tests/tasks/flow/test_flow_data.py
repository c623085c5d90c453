"""The shipped backbones: what their card says is true of them, their splits do not leak, and
batches are padded and centred."""

import shutil
import subprocess
import sys
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from equivbench.errors import FailedError
from equivbench.tasks.base import SPLITS, TaskData
from equivbench.tasks.flow.chains import STEP
from equivbench.tasks.flow.data import CROP, BackboneSplit, load
from equivbench.tasks.flow.sources import ca_crops_64, ca_small
from equivbench.tasks.flow.table import LAYOUT, MOST_SPREAD, PER_ANGSTROM, RESIDUES, spread
from equivbench.tasks.storage import RaggedTable, split_of


@pytest.fixture(scope="module")
def table() -> RaggedTable:
    return LAYOUT.read(ca_small().path())[0]


@pytest.fixture(scope="module", params=["ca-small", "ca-crops-64"])
def data(request: pytest.FixtureRequest) -> TaskData:
    return (ca_small() if request.param == "ca-small" else ca_crops_64()).load()


def spans(table: RaggedTable) -> list[slice]:
    ends = table["n_residues"].cumsum()
    return [slice(int(end - n), int(end)) for end, n in zip(ends, table["n_residues"], strict=True)]


def sequences(table: RaggedTable) -> list[str]:
    return [table["letter"][span].tobytes().decode() for span in spans(table)]


def test_the_card_is_true_of_the_file(table: RaggedTable) -> None:
    card = LAYOUT.read(ca_small().path())[1]
    assert card["sizes"] == table.sizes()
    assert card["clusters"] == table.units()
    assert card["residues"] == len(table["letter"]) == table["n_residues"].sum()
    whole = table["n_residues"] == table["of"]
    assert (card["whole_chains"], card["crops"]) == (whole.sum(), (~whole).sum())
    assert card["crops_from_chains"] == len(set(table["name"][~whole].tolist()))
    people = ca_small().path().with_suffix(".md").read_text()
    assert f"SHA-256 `{card['sha256']}`" in people
    assert "CC0" in people
    assert f"{card['whole_chains']} whole unbroken chains and {card['crops']} crops" in people
    assert ca_small().path().stat().st_size < 1e6


def test_samples_are_unbroken_compact_and_of_the_sizes_that_the_recipe_allows(
    table: RaggedTable,
) -> None:
    assert table["n_residues"].min() >= RESIDUES[0]
    assert table["n_residues"].max() <= RESIDUES[1]
    for span in spans(table):
        ca = table["ca"][span] / PER_ANGSTROM
        # Twice half a step of storage in each of three directions.
        rounding = np.sqrt(3) / PER_ANGSTROM
        steps = np.linalg.norm(np.diff(ca, axis=0), axis=1)
        assert steps.min() > STEP[0] - rounding
        assert steps.max() < STEP[1] + rounding
        assert spread(ca) < MOST_SPREAD + rounding
        assert np.abs(ca.mean(0)).max() <= 0.5 / PER_ANGSTROM


def test_neighbours_are_as_far_apart_as_in_proteins(table: RaggedTable) -> None:
    steps = np.concatenate(
        [
            np.linalg.norm(np.diff(table["ca"][span] / PER_ANGSTROM, axis=0), axis=1)
            for span in spans(table)
        ]
    )
    # Trans peptides: 3.80 A by the covalent geometry (Engh & Huber 1991); 99 of 100 residues follow
    # a trans peptide.
    assert np.median(steps) == pytest.approx(3.80, abs=0.02)
    assert np.mean(np.abs(steps - 3.80) < 0.15) > 0.98


def test_backbones_are_right_handed(table: RaggedTable) -> None:
    turns = []
    for span in spans(table):
        b = np.diff(table["ca"][span].astype(np.float64), axis=0)
        triple = np.einsum("ij,ij->i", np.cross(b[:-2], b[1:-1]), b[2:])
        reach = np.linalg.norm(b[:-2] + b[1:-1] + b[2:], axis=1) / PER_ANGSTROM
        # One turn of an alpha helix brings CA i+3 back to within 5.5 A of CA i.
        turns.append(triple[reach < 5.5] > 0)
    # Left-handed alpha helices hardly exist.
    assert np.concatenate(turns).mean() > 0.95


def test_no_sequence_is_part_of_another(table: RaggedTable) -> None:
    found = sequences(table)
    for index, sequence in enumerate(found):
        assert not any(sequence in other for place, other in enumerate(found) if place != index)


def test_splits_are_by_cluster_and_no_cluster_or_chain_is_in_two(table: RaggedTable) -> None:
    for unit in (table["cluster"], table["name"]):
        held = [set(unit[table["split"] == code].tolist()) for code in range(3)]
        assert sum(map(len, held)) == len(set.union(*held))
    clusters = table.units()
    total = sum(clusters.values())
    assert clusters["test"] >= 0.15 * total
    assert clusters["validation"] >= 0.08 * total


def test_each_cluster_is_in_the_split_that_one_of_its_sequences_draws(table: RaggedTable) -> None:
    drawn = np.array([SPLITS.index(split_of(sequence)) for sequence in sequences(table)])
    for number in np.unique(table["cluster"]):
        members = table["cluster"] == number
        assert table["split"][members][0] in drawn[members]


@pytest.mark.slow
def test_no_test_backbone_aligns_at_half_identity_with_one_of_training(table: RaggedTable) -> None:
    found = sequences(table)
    scoring = gemmi.AlignmentScoring("b")
    test, train = (
        np.flatnonzero(table["split"] == SPLITS.index(name)) for name in ("test", "train")
    )
    for one in test:
        for other in train:
            aligned = gemmi.align_string_sequences(
                list(found[one]), list(found[other]), [], scoring
            )
            assert aligned.match_count < 0.5 * min(len(found[one]), len(found[other]))


def test_crops_are_windows_of_at_most_64_residues_in_the_splits_of_their_chains() -> None:
    whole, crops = ca_small().load(), ca_crops_64().load()
    assert crops.card.name == "ca-crops-64"
    for name in SPLITS:
        one, other = whole.split(name), crops.split(name)
        assert isinstance(one, BackboneSplit)
        assert isinstance(other, BackboneSplit)
        assert int(other.counts.min()) >= RESIDUES[0]
        assert int(other.counts.max()) == CROP
        assert other.groups.max() == one.groups.max()
        expected = sum(n // CROP + (n % CROP >= RESIDUES[0]) for n in one.counts.tolist())
        assert len(other) == expected == crops.card.sizes[name]
    # The first crop of the first chain is that chain's beginning, up to where its centre is.
    chain, crop = (
        split.collate(torch.tensor([0]))["x1"][0, :CROP] for split in (whole.train, crops.train)
    )
    # float32 sums of 256 positions of a few nm.
    assert torch.allclose(chain - chain[:1], crop - crop[:1], atol=1e-5)


def test_batches_are_centred_padded_to_a_multiple_of_8_and_zero_in_the_padding(
    data: TaskData,
) -> None:
    indices = torch.tensor([3, 0, 5, 5])
    split = data.train
    assert isinstance(split, BackboneSplit)
    batch = split.collate(indices)
    x1, mask, residue = batch["x1"], batch["mask"], batch["residue"]
    longest = int(split.counts[indices].max())
    assert x1.shape == (4, -(-longest // 8) * 8, 3)
    assert (x1.dtype, mask.dtype, residue.dtype) == (torch.float32, torch.bool, torch.int64)
    assert torch.equal(mask.sum(1), split.counts[indices])
    assert not x1[~mask].any()
    assert not residue[~mask].any()
    for row, length in zip(residue, split.counts[indices], strict=True):
        assert row[:length].tolist() == list(range(int(length)))
    # float32 rounding of sums of up to 256 positions of up to 4 nm.
    assert float(x1.sum(1).abs().max()) < 1e-4
    assert torch.equal(x1[2], x1[3])


def test_a_sample_does_not_depend_on_its_batch(data: TaskData) -> None:
    together = data.validation.collate(torch.arange(6))
    for index in range(6):
        alone = data.validation.collate(torch.tensor([index]))
        length = int(alone["mask"].sum())
        # The mean sums the same numbers in blocks of another size.
        assert torch.allclose(together["x1"][index, :length], alone["x1"][0, :length], atol=1e-6)
        assert int(together["mask"][index].sum()) == length


def test_every_group_of_a_split_is_a_cluster(data: TaskData) -> None:
    for name in SPLITS:
        split = data.split(name)
        assert split.groups.unique().tolist() == list(range(int(split.groups.max()) + 1))
        assert len(split) == len(split.groups) == data.card.sizes[name]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_a_failure_that_names_it(tmp_path: Path, kept: float) -> None:
    for suffix in (".npz", ".json"):
        shutil.copy(ca_small().path().with_suffix(suffix), tmp_path)
    copy = tmp_path / "ca-small.npz"
    copy.write_bytes(copy.read_bytes()[: int(kept * copy.stat().st_size)])
    with pytest.raises(
        FailedError, match=r"ca-small\.npz .*cut short or changed.*data prepare ca-small"
    ):
        load(copy)


def test_declarations_and_checks_of_the_data_import_no_torch_and_no_gemmi() -> None:
    code = (
        "import sys, equivbench.tasks.flow.generate, equivbench.tasks.flow.declarations; "
        "from equivbench.tasks.flow.sources import ca_small; ca_small().verify(); "
        "sys.exit('torch' in sys.modules or 'gemmi' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
