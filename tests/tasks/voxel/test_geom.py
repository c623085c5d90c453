"""The reader of MiDi's GEOM-drugs files, on small pickles in the published format; only one test
needs rdkit."""

import io
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.base import SPLITS
from equivbench.tasks.voxel import sources
from equivbench.tasks.voxel.sources import geom_drugs
from equivbench.tasks.voxel.table import LAYOUT, NUMBERS, PUBLISHED, UNIT, bounding_radii

Content = list[tuple[str, list[object]]]


@pytest.fixture
def mol(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], object]:
    """A class that pickles as rdkit's molecule does: the class's name, its binary, a state of
    ({},)."""

    class Mol:
        def __init__(self, binary: bytes) -> None:
            self.binary = binary

        def __reduce__(self) -> tuple[type, tuple[bytes], tuple[dict[str, str]]]:
            return Mol, (self.binary,), ({},)

    Mol.__module__, Mol.__qualname__ = "rdkit.Chem.rdchem", "Mol"
    for name in ("rdkit", "rdkit.Chem", "rdkit.Chem.rdchem"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["rdkit.Chem.rdchem"], "Mol", Mol, raising=False)
    return Mol


def binary(z: np.ndarray, pos: np.ndarray) -> bytes:
    """A molecule in bytes that :func:`decoded` reads, in the place of rdkit's own format."""
    return struct.pack("<i", len(z)) + z.astype("<i4").tobytes() + pos.astype("<f8").tobytes()


def decoded(data: bytes) -> sources.Decoded | None:
    if data == b"broken":
        return None
    (n,) = struct.unpack_from("<i", data)
    return np.frombuffer(data, "<i4", n, 4), np.frombuffer(data, "<f8", 3 * n, 4 + 4 * n).reshape(
        n, 3
    )


def molecule(seed: int, atoms: int = 12) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    # Places of a jittered grid of 1.3 A: no two come nearer than 0.7 A.
    cells = generator.choice(27, atoms, replace=False)
    places = 1.3 * np.array([*np.ndindex(3, 3, 3)])[cells] - 1.3
    pos = places + generator.uniform(-0.3, 0.3, (atoms, 3)) + 20
    return generator.choice(NUMBERS, atoms), pos


def write_midi(
    folder: Path, mol: Callable[[bytes], object], *, protocol: int = 4, extra: Content | None = None
) -> None:
    """The three files, each with four molecules of two conformers."""
    for part, file in enumerate(sources.FILES.values()):
        content: Content = [
            (
                f"C{part}{index}",
                [mol(binary(*molecule(100 * part + 10 * index + k))) for k in range(2)],
            )
            for index in range(4)
        ]
        (folder / file).write_bytes(pickle.dumps(content + (extra or []), protocol=protocol))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_published_split_is_kept_and_molecules_are_centred(
    tmp_path: Path, mol: Callable[[bytes], object], protocol: int
) -> None:
    write_midi(tmp_path, mol, protocol=protocol)
    sources.convert(tmp_path, tmp_path / "out.npz", decoded)
    table, card = LAYOUT.read(tmp_path / "out.npz")
    assert card["sizes"] == dict.fromkeys(SPLITS, 8)
    assert card["molecules"] == dict.fromkeys(SPLITS, 4)
    assert table["names"].tolist() == [
        f"C{part}{index}".encode() for part in range(3) for index in range(4)
    ]
    z, pos = molecule(0)
    assert np.array(NUMBERS)[table["channel"][:12]].tolist() == z.tolist()
    # Distances survive the shift; two positions rounded to 1 mA along three axes.
    stored = table["pos"][:12] * UNIT
    assert np.allclose(
        np.linalg.norm(stored - stored[0], axis=1), np.linalg.norm(pos - pos[0], axis=1), atol=2e-3
    )
    assert bounding_radii(table).max() < 2 * np.sqrt(3)


def test_only_the_first_conformers_count(tmp_path: Path, mol: Callable[[bytes], object]) -> None:
    write_midi(tmp_path, mol, extra=[("many", [mol(binary(*molecule(k))) for k in range(9)])])
    sources.convert(tmp_path, tmp_path / "out.npz", decoded)
    assert LAYOUT.read(tmp_path / "out.npz")[1]["sizes"]["train"] == 8 + 5


def test_what_cannot_be_shown_is_left_out_counted_once_and_the_rest_is_used(
    tmp_path: Path, mol: Callable[[bytes], object]
) -> None:
    z, pos = molecule(7)
    spoiled: Content = [
        ("long", [mol(binary(z, pos * [1, 1, 9]))]),
        ("iodide", [mol(binary(np.where(np.arange(12) == 3, 53, z), pos))]),
        ("nan", [mol(binary(z, np.where(np.arange(12)[:, None] == 3, np.nan, pos)))]),
        ("nothing", [mol(binary(z[:0], pos[:0]))]),
        ("coincident", [mol(binary(z, np.where(np.arange(12)[:, None] == 3, pos[4], pos)))]),
        ("broken", [mol(b"broken"), mol(binary(z, pos))]),
        ("none", []),
    ]
    write_midi(tmp_path, mol, extra=spoiled)
    with pytest.warns(EquivbenchWarning) as caught:
        sources.convert(tmp_path, tmp_path / "out.npz", decoded)
    assert len(caught) == 1
    message = str(caught[0].message)
    for words in (
        "18 conformers left out",
        "3 with atoms nearer than 0.4 A",
        "3 too large for the 16 A box",
        "3 with elements",
        "3 that rdkit",
        "6 without",
        "27 are",
    ):
        assert words in message
    table, card = LAYOUT.read(tmp_path / "out.npz")
    assert card["sizes"] == dict.fromkeys(SPLITS, 9)
    assert sum(card["recipe"]["conformers left out"].values()) == 18
    assert card["sources"].keys() == set(sources.FILES.values())
    assert all(PUBLISHED.holds(radius) for radius in bounding_radii(table))


def test_a_set_without_a_usable_conformer_is_a_failure_that_says_why(
    tmp_path: Path, mol: Callable[[bytes], object]
) -> None:
    for file in sources.FILES.values():
        (tmp_path / file).write_bytes(pickle.dumps([("C", [mol(b"broken")])]))
    with pytest.raises(
        FailedError,
        match=r"no usable conformer for train and validation and test \(3 that rdkit cannot decode",
    ):
        sources.convert(tmp_path, tmp_path / "out.npz", decoded)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("file", sources.FILES.values())
def test_a_file_cut_short_is_named_and_nothing_is_written(
    tmp_path: Path, mol: Callable[[bytes], object], file: str, kept: float
) -> None:
    write_midi(tmp_path, mol)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(
        FailedError, match=f"{file} is not GEOM-drugs as published with MiDi, or is cut short"
    ):
        sources.convert(tmp_path, tmp_path / "out.npz", decoded)
    assert not list(tmp_path.glob("out*"))


def test_a_file_that_the_system_does_not_give_is_not_said_to_be_broken(
    tmp_path: Path, mol: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_midi(tmp_path, mol)

    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FailedError, match=r"train_data\.pickle cannot be read .Permission denied"):
        sources.convert(tmp_path, tmp_path / "out.npz", decoded)


class Command:
    """Unpickling this would run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path, mol: Callable[[bytes], object]) -> None:
    mark = tmp_path / "ran"
    write_midi(tmp_path, mol, extra=[("C", [Command(mark)])])
    with pytest.raises(FailedError, match=r"train_data\.pickle .*system, which no molecule needs"):
        sources.convert(tmp_path, tmp_path / "out.npz", decoded)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "os system",
        "rdkit.Chem.rdchem Atom",
        "rdkit.Chem.rdchem Mol.__init__",
        "copyreg _reconstructor",
    ],
)
def test_no_other_name_is_looked_up(tmp_path: Path, name: str) -> None:
    module, attribute = name.split()
    path = tmp_path / "train_data.pickle"
    with io.BytesIO() as stream:
        stream.write(b"\x80\x04\x8c" + bytes([len(module)]) + module.encode())
        stream.write(b"\x8c" + bytes([len(attribute)]) + attribute.encode() + b"\x93.")
        path.write_bytes(stream.getvalue())
    with pytest.raises(FailedError, match=attribute.replace(".", r"\.")):
        list(sources.molecules(path))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"not a pickle", "not GEOM-drugs"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "not GEOM-drugs"),
        (pickle.dumps({"C": []}), "holds a dict"),
        (pickle.dumps([("C", ["no molecule"])]), "entry 0"),
        (pickle.dumps([("C", []), ("C", [], 1)]), "entry 1"),
        (pickle.dumps([(b"C", [])]), "entry 0"),
        (
            b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00CX\x03\x00\x00\x00rot\x86R.",
            "encodes text as 'rot'",
        ),
    ],
    ids=["text", "enormous", "dict", "entry", "triple", "bytes", "codec"],
)
def test_other_content_is_a_failure_that_names_the_file(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "val_data.pickle"
    path.write_bytes(content)
    with pytest.raises(FailedError, match=complaint) as caught:
        list(sources.molecules(path))
    assert "val_data.pickle" in str(caught.value)


def test_a_set_that_the_user_lacks_says_where_to_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mol: Callable[[bytes], object]
) -> None:
    monkeypatch.setenv("EQUIVBENCH_DATA_GEOM_DRUGS", str(tmp_path))
    write_midi(tmp_path, mol)
    (tmp_path / "val_data.pickle").unlink()
    with pytest.raises(
        FailedError, match=r"val_data\.pickle is not there; set EQUIVBENCH_DATA_GEOM_DRUGS"
    ):
        sources.convert(tmp_path, tmp_path / "out.npz", decoded)


def test_without_rdkit_the_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(FailedError, match=r"pip install 'equivbench\[generate\]'"):
        geom_drugs().prepare()


def test_real_molecules_are_decoded(tmp_path: Path) -> None:
    Chem = pytest.importorskip("rdkit.Chem")
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    assert sources.decode(molecule.ToBinary()) is None, "it has no conformer"
    assert sources.decode(b"nonsense") is None
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    (tmp_path / "train_data.pickle").write_bytes(pickle.dumps([("CCO", [molecule])]))
    [(smiles, [data])] = sources.molecules(tmp_path / "train_data.pickle")
    found = sources.decode(data)
    assert smiles == "CCO"
    assert found is not None
    assert found[0].tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    # rdkit's binary keeps positions in float32.
    assert np.allclose(found[1], molecule.GetConformer().GetPositions(), atol=1e-6)
