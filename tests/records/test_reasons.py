"""Somebody's words become a reason that tells no machine and drives no terminal."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.records.reasons import plain_reason, without_places

PART = st.text("abcXYZ019._-+@", min_size=1, max_size=8).filter(lambda text: text.strip("."))


@given(
    st.sampled_from(["/", "~/", "C:\\", "\\\\", "file:///"]),
    st.lists(PART, min_size=2, max_size=5),
    st.sampled_from(["", "'", '"', "(", "=", ": "]),
)
def test_of_an_absolute_path_the_last_part_is_left(
    root: str, parts: list[str], before: str
) -> None:
    joint = "\\" if "\\" in root else "/"
    said = without_places(f"cannot read {before}{root}{joint.join(parts)}, which is damaged")
    assert said == f"cannot read {before}.../{parts[-1]}, which is damaged"


@pytest.mark.parametrize(
    "text",
    [
        "forcefield/vector augmented seed 0 failed with ValueError: 1/2 (eV/A)^2",
        "see https://example.org/a/b, and tasks/flow/task.py",
        "a / b / c and 3 // 2",
        "loss 1e-3/step",
    ],
)
def test_what_is_no_path_stays(text: str) -> None:
    assert without_places(text) == text


def test_the_users_own_folders_are_left_out_whatever_their_names() -> None:
    for folder in (str(Path.home()), os.getcwd()):
        if folder.count(os.sep) > 1:
            assert folder not in plain_reason(f"{folder}/some file of mine.txt is gone")


def test_a_reason_can_be_given_where_no_folder_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(Path, "home", raising(RuntimeError("no home")))
    monkeypatch.setattr(tempfile, "gettempdir", raising(FileNotFoundError("no place")))
    assert plain_reason("cannot write /var/spool/equivbench/run.json") == (
        "cannot write .../run.json"
    )


def raising(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def test_the_host_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "node17")
    assert plain_reason("lost node17, not node170") == "lost <host>, not node170"


@given(st.text(max_size=300))
def test_a_reason_is_one_line_that_drives_no_terminal(text: str) -> None:
    said = plain_reason(text, 100)
    assert said.isprintable()
    assert "\n" not in said
