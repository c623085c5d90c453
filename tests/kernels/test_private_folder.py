"""Code is loaded only from where nobody else can put it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from equivbench.errors import FailedError
from equivbench.kernels.private_folder import is_private, private_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system knows no owners")


def test_it_is_made_and_closed(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    assert private_folder(made).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o702])
def test_where_others_can_replace_it_it_is_refused(tmp_path: Path, mode: int) -> None:
    above = tmp_path / "above"
    made = private_folder(above / "mine" / "kernels")
    above.chmod(mode)
    with pytest.raises(FailedError, match="chmod go-w"):
        private_folder(made)
    above.chmod(mode | 0o1000)
    private_folder(made)


def test_a_link_is_as_safe_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "open" / "target").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "open" / "target")
    private_folder(tmp_path / "link")
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(FailedError, match="others can write"):
        private_folder(tmp_path / "link")


def test_what_it_is_called_has_no_link_that_could_be_turned(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    made = private_folder(tmp_path / "link" / "kernels")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "another")
    assert made == tmp_path / "target" / "kernels"
    assert made.is_dir()


def test_what_belongs_to_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = private_folder(tmp_path / "kernels")
    file = made / "file"
    file.touch(mode=0o600)
    assert is_private(file)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(FailedError, match="belongs to another user; name a folder"):
        private_folder(made)
    assert not is_private(file)


def test_a_plain_file_of_ones_own_is_private(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o600)
    (tmp_path / "link").symlink_to(file)
    assert is_private(file)
    assert not is_private(tmp_path / "link")
    assert not is_private(tmp_path)
    file.chmod(0o602)
    assert not is_private(file)
