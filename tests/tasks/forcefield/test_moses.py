"""The SMILES of MOSES in the wheel of molsets, and a set that is too long for one sitting, with
molecules that are made up: what goes into it is the same however often its making was
interrupted."""

import csv
import gzip
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equivbench.errors import FailedError
from equivbench.tasks.forcefield import generate
from equivbench.tasks.forcefield.moses import TABLE, WHEEL, moses_smiles
from equivbench.tasks.forcefield.sources import gfn2_100k
from equivbench.tasks.forcefield.table import LAYOUT
from equivbench.tasks.parts import PART

SMILES = ["CCO", "c1ccccc1C(=O)N", "CC(C)=O"]


def wheel(path: Path, smiles: Sequence[str], column: str = "SMILES") -> Path:
    """A wheel in the format of molsets."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([column])
    writer.writerows([each] for each in smiles)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(TABLE, gzip.compress(text.getvalue().encode()))
    return path


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the wheel is looked for; the cache is empty."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EQUIVBENCH_DATA_MOSES", str(tmp_path / WHEEL))
    return tmp_path / WHEEL


def test_the_smiles_are_read_in_their_order(given: Path) -> None:
    wheel(given, SMILES)
    assert moses_smiles() == SMILES


def test_other_files_are_a_failure_that_names_the_file(given: Path) -> None:
    given.write_bytes(b"no archive")
    with pytest.raises(FailedError, match=r"is not the wheel of molsets 0\.3\.1"):
        moses_smiles()
    with pytest.raises(FailedError, match=r"is not the wheel of molsets .*SMILES"):
        wheel(given, SMILES, column="smiles")
        moses_smiles()
    content = wheel(given, SMILES * 1000).read_bytes()
    given.write_bytes(content[: len(content) // 2])
    with pytest.raises(FailedError, match=r"cut short .*fetch it again"):
        moses_smiles()
    with zipfile.ZipFile(given, "w") as archive:
        archive.writestr(TABLE, gzip.compress(b"SMILES\nCCO\n" * 100)[:-12])
    with pytest.raises(FailedError, match=r"cut short .*fetch it again"):
        moses_smiles()


def test_a_wheel_that_the_user_lacks_says_how_to_get_it(given: Path) -> None:
    with pytest.raises(FailedError, match=r"pip download --no-deps molsets==0\.3\.1"):
        gfn2_100k().prepare()


class Laboratory:
    """Stands for rdkit and tblite: makes three conformations of four atoms of every molecule but
    each 29th, and is interrupted after ``most``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> None:
        self.made: list[str] = []
        self._most = most
        monkeypatch.setattr(generate, "in_processes", self._labelled)
        monkeypatch.setattr(generate, "recipe", lambda *_: {"tools": {"none": "1"}, "seed": 0})
        monkeypatch.setattr(generate, "pool", lambda *_: [f"[{n}]" for n in range(200)])
        monkeypatch.setattr(
            generate, "further_pool", lambda _, texts, number, *__: [*texts][:number]
        )

    def _labelled(
        self, _: Any, names: Sequence[str], seed: int, processes: int
    ) -> Iterator[tuple[Any, ...] | None]:
        for name in names:
            if len(self.made) == self._most:
                raise KeyboardInterrupt
            self.made.append(name)
            number = int(name.strip("[]"))
            generator = np.random.default_rng(number)
            pos = generator.normal(size=(3, 4, 3)) + 3 * np.arange(4)[:, None]
            forces = generator.normal(size=(3, 4, 3))
            yield (
                None
                if number % 29 == 4
                else (
                    name,
                    np.array([6, 1, 8, 1], dtype=np.uint8),
                    pos.astype(np.float32),
                    forces.astype(np.float32),
                    generator.normal(size=3),
                )
            )


FURTHER = [f"[{number}]" for number in range(1000, 4000)]
SAMPLES = 2000


def test_an_interrupted_set_goes_on_and_its_bytes_are_those_of_one_that_was_not(
    given: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel(given, FURTHER)
    whole = Laboratory(monkeypatch)
    expected = generate.generate_beyond(SAMPLES, tmp_path / "one" / "set.npz", further=FURTHER)
    out = tmp_path / "two" / "set.npz"
    Laboratory(monkeypatch, most=PART + 20)
    with pytest.raises(KeyboardInterrupt):
        generate.generate_beyond(SAMPLES, out, further=FURTHER)
    assert not out.exists()
    rest = Laboratory(monkeypatch)
    generate.generate_beyond(SAMPLES, out, further=FURTHER)
    assert rest.made == whole.made[PART:]
    for suffix in (".npz", ".json", ".md"):
        assert out.with_suffix(suffix).read_bytes() == expected.with_suffix(suffix).read_bytes()
    assert {path.suffix for path in out.parent.iterdir()} == {".npz", ".json", ".md"}


def test_parts_of_other_molecules_are_not_gone_on_with(
    given: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel(given, FURTHER)
    out = tmp_path / "set.npz"
    Laboratory(monkeypatch, most=PART + 20)
    with pytest.raises(KeyboardInterrupt):
        generate.generate_beyond(SAMPLES, out, further=FURTHER)
    other = Laboratory(monkeypatch)
    generate.generate_beyond(SAMPLES, out, further=[*reversed(FURTHER)])
    assert len(other.made) > PART
    names = {name.decode() for name in LAYOUT.read(out)[0]["names"]}
    assert FURTHER[-1] in names
    assert FURTHER[0] not in names


def test_the_first_molecules_are_rdkits_and_lie_in_the_splits_of_a_smaller_set(
    given: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel(given, FURTHER)
    Laboratory(monkeypatch)
    small = LAYOUT.read(generate.generate(400, tmp_path / "small.npz"))[0]
    large, card = LAYOUT.read(
        generate.generate_beyond(SAMPLES, tmp_path / "large.npz", further=FURTHER)
    )
    assert sum(large.sizes().values()) == SAMPLES
    # The last molecule of the smaller set has one conformation, not three.
    shared = len(small.counts)
    for column in ("energy", "split", "molecule"):
        assert np.array_equal(small[column], large[column][:shared])
    assert card["sources"].keys() == {WHEEL}
    assert "MOSES" in card["licences"]["further structures"]


def test_too_few_molecules_are_a_failure_and_nothing_is_written(
    given: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Laboratory(monkeypatch)
    with pytest.raises(FailedError, match=r"203 molecules qualify and give .*ask for fewer"):
        generate.generate_beyond(SAMPLES, tmp_path / "set.npz", further=FURTHER[:3])
    assert not (tmp_path / "set.npz").exists()
