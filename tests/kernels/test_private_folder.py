"""Code is loaded only from where nobody else can put it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.kernels.private_folder import is_private, private_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system knows no owners")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose own cache folder and folder for temporary files are these."""
    home = tmp_path_factory.mktemp("home")
    (home / "temporary").mkdir()
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, **_: str(home / "own" / name))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(home / "temporary"))
    return home


def is_safe(folder: Path) -> bool:
    """Whether nobody else can write ``folder`` or put another in its place."""
    modes = [above.stat().st_mode for above in folder.parents]
    replaceable = any(mode & 0o022 and not mode & 0o1000 for mode in modes)
    return folder.stat().st_mode & 0o777 == 0o700 and not replaceable


def test_it_is_made_and_closed(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    assert private_folder(made).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o702, 0o2775])
def test_where_others_can_replace_it_another_is_made(
    tmp_path: Path, home: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as in a project's folder that a group shares, or one made under a umask of 002."""
    monkeypatch.setattr("equivbench.kernels.private_folder._writable_by_others", open_by_mode)
    above = tmp_path / "above"
    made = private_folder(above / "mine" / "kernels")
    above.chmod(mode)
    with pytest.warns(EquivbenchWarning, match=r"others can write .*above; close it.*kept in"):
        other = private_folder(made)
    assert other.is_relative_to(home / "own")
    assert is_safe(other)
    assert private_folder(made) == other, "the same, and not said again"
    with pytest.warns(EquivbenchWarning, match="other/kernels: others can write"):
        assert private_folder(above / "other" / "kernels") != other
    above.chmod(mode | 0o1000)
    assert private_folder(made) == made


def open_by_mode(found: os.stat_result) -> bool:
    """As where the user's group has other members."""
    return bool(found.st_mode & 0o022)


def test_with_an_open_cache_folder_it_is_a_temporary_one(tmp_path: Path, home: Path) -> None:
    made = private_folder(tmp_path / "above" / "kernels")
    made.parent.chmod(0o777)
    (home / "own").mkdir()
    (home / "own").chmod(0o777)
    (home / "temporary").chmod(0o1777)
    with pytest.warns(EquivbenchWarning, match="kept in"):
        other = private_folder(made)
    assert other.is_relative_to(home / "temporary")
    assert is_safe(other)


def test_where_there_is_none_of_ones_own_it_is_refused(tmp_path: Path, home: Path) -> None:
    made = private_folder(tmp_path / "above" / "kernels")
    made.parent.chmod(0o777)
    home.chmod(0o777)
    with pytest.raises(FailedError, match="chmod go-w"):
        private_folder(made)


def test_a_link_is_as_safe_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "open" / "target").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "open" / "target")
    private_folder(tmp_path / "link")
    (tmp_path / "open").chmod(0o777)
    with pytest.warns(EquivbenchWarning, match="others can write"):
        assert private_folder(tmp_path / "link") != tmp_path / "open" / "target"


def test_a_link_that_another_user_planted_is_not_followed(tmp_path: Path) -> None:
    """Whether it lies in a folder that others can write, or in a sticky one."""
    if os.geteuid() != 0:
        pytest.skip("only root gives a link to another user")
    (tmp_path / "documents").mkdir(mode=0o755)
    (tmp_path / "shared").mkdir()
    link = tmp_path / "shared" / "compiler"
    link.symlink_to(tmp_path / "documents")
    (tmp_path / "shared").chmod(0o777)
    with pytest.warns(EquivbenchWarning, match="others can write .*shared"):
        assert private_folder(link) != tmp_path / "documents"
    (tmp_path / "shared").chmod(0o1777)
    os.lchown(link, 12345, -1)
    with pytest.warns(EquivbenchWarning, match="the link .*compiler belongs to another user"):
        assert private_folder(link) != tmp_path / "documents"
    assert (tmp_path / "documents").stat().st_mode & 0o777 == 0o755, "nor is it closed"


def test_where_it_cannot_be_made_another_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    mkdir = Path.mkdir

    def only_elsewhere(path: Path, *given: object, **options: object) -> None:
        if path.is_relative_to(tmp_path / "readonly"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        made.append(path)
        mkdir(path, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", only_elsewhere)
    with pytest.warns(EquivbenchWarning, match=r"Permission denied.*kept in"):
        assert private_folder(tmp_path / "readonly" / "kernels") in made


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
