"""The independent count that ``tools/check_structures.py`` holds the reader against, on the inputs
that lie here."""

import gzip
import zipfile
from collections import Counter
from pathlib import Path

import check_structures
import pytest

from equivbench.tasks.flow.chains import FileChains

INPUTS = Path(__file__).parents[2] / "data" / "structures"


def test_the_reader_agrees_with_a_count_by_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_structures.main(INPUTS) == 0
    assert "10 files, 10 agree" in capsys.readouterr().out


def test_wheels_and_packed_files_are_looked_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (INPUTS / "bom.pdb").read_bytes()
    with zipfile.ZipFile(tmp_path / "some-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some/one.pdb.gz", gzip.compress(content))
        wheel.writestr("some/code.py", "")
    assert check_structures.main(tmp_path) == 0
    assert "1 files, 1 agree" in capsys.readouterr().out


def test_what_disagrees_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(content: bytes, name: str, entry: str) -> FileChains:
        found = FileChains()
        found.left_out = Counter()
        return found

    monkeypatch.setattr(check_structures, "chains_of", nothing)
    assert check_structures.main(INPUTS) == 1
    assert "wrapped_chain.pdb: [], by lines [90]" in capsys.readouterr().out


def test_a_folder_without_structures_fails(tmp_path: Path) -> None:
    assert check_structures.main(tmp_path) == 1
