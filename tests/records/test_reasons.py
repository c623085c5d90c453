"""Somebody's words become a reason that tells no machine and drives no terminal."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from factories import make_record
from hypothesis import given
from hypothesis import strategies as st

from equivbench.records.plausibility import remarks
from equivbench.records.reasons import plain_reason, without_places, without_places_in
from equivbench.request import RunRequest
from equivbench.studies.gradients.record import GradientsRequest

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


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"weights": "/home/me/my runs/best.pt"}, {"weights": ".../best.pt"}),
        ({"a": [{"b": "~/x/y.json"}, 3]}, {"a": [{"b": ".../y.json"}, 3]}),
        ({"place": "C:\\Users\\me\\net.pt"}, {"place": ".../net.pt"}),
        ({"from": "see /data/me/a.pt, then b"}, {"from": "see .../a.pt, then b"}),
        (
            {"irreps": "32x1o/2", "n": None, "act": "silu"},
            {"irreps": "32x1o/2", "n": None, "act": "silu"},
        ),
        ((1, "forcefield/vector"), [1, "forcefield/vector"]),
    ],
)
def test_a_config_names_no_folder(value: object, said: object) -> None:
    assert without_places_in(value) == said
    assert without_places_in(said) == said


def test_a_recorded_command_names_no_folder_and_keeps_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "vector")
    request = RunRequest.of(pairs=["forcefield/vector"], out="/home/me/results", seeds="0-2")
    assert request.command(recorded=True) == "equivbench run forcefield/vector --seeds 0,1,2"
    kept = GradientsRequest.of(runs=["/home/me/my results/run.json"]).command(recorded=True)
    assert kept == "equivbench analyze gradients .../run.json"


def test_a_record_that_names_a_folder_is_remarked() -> None:
    record = make_record(model={"config": {"weights": "/home/me/best.pt"}})
    assert any("model.config names a folder" in remark for remark in remarks(record))
    assert not any("names a folder" in remark for remark in remarks(make_record()))


@given(st.text(max_size=300))
def test_a_reason_is_one_line_that_drives_no_terminal(text: str) -> None:
    said = plain_reason(text, 100)
    assert said.isprintable()
    assert "\n" not in said
