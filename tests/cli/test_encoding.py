"""What commands print is UTF-8 whatever the locale says, on a terminal, in a pipe and in a file."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_record

from equivbench.cli.main import main
from equivbench.records.store import write_record
from equivbench.report.formats import ALL_FORMATS, PAGE

ENCODINGS = ("utf-8", "cp1252", "ascii", "utf-16")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for arm in ("equivariant", "augmented"):
        write_record(make_record(arm=arm), tmp_path / "r\u00e9sultats \u4e2d")
    return tmp_path / "r\u00e9sultats \u4e2d"


def printed(
    arguments: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[object, bytes, bytes]:
    """(exit code, stdout, stderr) of a command whose streams a locale gave this encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n") for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as stop:
            main(arguments)
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue() for stream in streams)  # type: ignore[attr-defined]
    return stop.value.code, out, err


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_a_board_is_the_same_bytes_in_every_locale_and_in_a_file(
    name: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ["leaderboard", "export", "--format", name, "--results", str(results)]
    shown = {encoding: printed(export, encoding, monkeypatch) for encoding in ENCODINGS}
    assert set(shown.values()) == {(0, shown["utf-8"][1], b"")}
    file = tmp_path / "board"
    assert printed([*export, "--out", str(file)], "ascii", monkeypatch) == (0, b"", b"")
    assert file.read_bytes() == shown["utf-8"][1]


@pytest.mark.parametrize("arguments", [["gap"], ["gap", "--json"], ["analyze", "baselines"]])
def test_tables_and_messages_are_the_same_bytes_in_every_locale(
    arguments: list[str], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (results / "sub").mkdir()
    (results / "sub" / "k\u0101rta.json").write_bytes(b"{")
    shown = {printed([*arguments, str(results)], each, monkeypatch) for each in ENCODINGS}
    ((_, _, err),) = shown
    assert "k\u0101rta.json" in err.decode("utf-8")


def test_a_name_that_is_no_text_ends_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    code, out, err = printed(["gap", nowhere], "ascii", monkeypatch)
    assert (code, out) == (3, b"")
    assert err.decode("utf-8").startswith("error: ")


@pytest.mark.slow
def test_the_page_goes_through_a_pipe_whatever_its_encoding(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ["leaderboard", "export", "--format", PAGE, "--results", str(results)]
    settings = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run(
        [sys.executable, "-m", "equivbench", *export],
        capture_output=True,
        env={**os.environ, **settings},
        timeout=120,
        check=True,
    ).stdout
    assert found == printed(export, "utf-8", monkeypatch)[1]
    assert not found.isascii()
