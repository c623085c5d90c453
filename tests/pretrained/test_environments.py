"""Environments of pretrained networks: made whole or not at all, and by one process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from toy_pretrained import FAMILY, make_wheel, offline

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.pretrained import environments
from equivbench.pretrained.environments import environment_folder, is_made, ready_python
from equivbench.pretrained.networks import Family

SHADOWED = "iniconfig"
"""A package that tests need, so that this environment has it."""
SLOW = """
import sys, time
from pathlib import Path
from toy_pretrained import FAMILY
from equivbench.pretrained import environments
made = environments._install
def install(family, pip):
    with open(sys.argv[1], "a") as log:
        log.write("began\\n")
    time.sleep(float(sys.argv[2]))
    made(family, pip)
environments._install = install
print(environments.ready_python(FAMILY))
"""
"""Makes the toys' environment after a time, and says so."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a wheel of the toys; nothing is made yet."""
    make_wheel(tmp_path, "toy-networks", "1.0")
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def left_behind(index: Path) -> list[str]:
    """What is in the folder of environments beside locks."""
    found = (index / "cache" / "environments").iterdir()
    return sorted(each.name for each in found if each.suffix != ".lock")


def test_an_environment_is_made_once_and_sees_the_packages_of_this_one(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr(environments, "_install", refuse)
    assert ready_python(FAMILY) == toys
    code = "import numpy, torch, toy_networks; print(numpy.__version__, toy_networks.__file__)"
    done = subprocess.run([toys, "-I", "-c", code], capture_output=True, text=True, check=True)
    found, place = done.stdout.split()
    assert found == version("numpy")
    assert Path(place).is_relative_to(toys.parent.parent)


def test_another_version_of_a_shared_package_comes_first(index: Path) -> None:
    make_wheel(index, SHADOWED, "99.0", "WHOSE = 'its own'\n")
    family = Family("shadow", (f"{SHADOWED}==99.0",), (SHADOWED,), "a test")
    code = f"import {SHADOWED}; print({SHADOWED}.WHOSE)"
    python = ready_python(family)
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "its own\n"
    assert version(SHADOWED) != "99.0"


def test_what_is_shared_and_asked_for_names_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = Family("toys", ("toy-networks==1.1",), FAMILY.packages, "a test")
    before = {environment_folder(each) for each in (FAMILY, newer)}
    monkeypatch.setattr(environments, "package_versions", lambda names: {"torch": "9.9"})
    after = {environment_folder(each) for each in (FAMILY, newer)}
    assert len(before | after) == 4


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system knows no owners")
def test_where_others_can_write_the_cache_it_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or they could put a program of theirs in its place."""
    own = tmp_path / "own"
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, **_: str(own / name))
    cache = tmp_path / "cache"
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(cache))
    folder = environment_folder(FAMILY)
    assert folder.parent == cache / "environments"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o777)
    planted = folder / "bin" / "python"
    planted.parent.mkdir(parents=True)
    planted.touch()
    with pytest.warns(EquivbenchWarning, match="others can write"):
        assert environment_folder(FAMILY).is_relative_to(own)
    assert not is_made(FAMILY)


def test_a_package_that_is_not_to_be_had_is_one_sentence(index: Path) -> None:
    family = Family("absent", ("no-such-package==1.0",), (), "a test")
    with pytest.raises(FailedError) as refused:
        ready_python(family)
    said = str(refused.value)
    assert re.fullmatch(
        "the environment of absent cannot be made, for pip says: No matching distribution found "
        "for no-such-package==1.0; it takes a network connection to the package index, once",
        said,
    )
    assert left_behind(index) == []


def test_a_disk_that_refuses_is_one_sentence(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (index / "file").write_text("no folder")
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(index / "file"))
    with pytest.raises(FailedError, match=r"the environment of toys cannot be made: .*; check"):
        ready_python(FAMILY)


def slow_maker(index: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    return start(index, SLOW, str(log), str(seconds))


def start(index: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    support = Path(__file__).parents[1] / "support"
    path = os.pathsep.join([str(support), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **offline(index), "PYTHONPATH": path},
    )


def wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, "it never began"
        time.sleep(0.05)


def test_one_that_was_killed_on_the_way_is_removed_by_the_next(index: Path) -> None:
    killed = slow_maker(index, index / "log", 600)
    wait_for(index / "log")
    assert left_behind(index), "it is not in the middle"
    killed.kill()
    killed.communicate(timeout=60)
    python = ready_python(FAMILY)
    assert left_behind(index) == [python.parent.parent.name]


def test_one_that_is_interrupted_leaves_nothing(index: Path) -> None:
    stopped = slow_maker(index, index / "log", 600)
    wait_for(index / "log")
    stopped.send_signal(signal.SIGINT)
    stopped.communicate(timeout=60)
    assert left_behind(index) == []


def test_of_two_at_once_one_makes_it_and_both_have_it(index: Path) -> None:
    both = [slow_maker(index, index / "log", 1.0) for _ in range(2)]
    found = [each.communicate(timeout=120) for each in both]
    assert [each.returncode for each in both] == [0, 0], found
    assert found[0][0] == found[1][0]
    assert (index / "log").read_text() == "began\n"


COMMAND = """
import sys, time
from pathlib import Path
from toy_pretrained import SPRINGS
from equivbench.cli.main import main
from equivbench.pretrained import environments
from equivbench.pretrained.networks import NETWORKS
def install(family, pip):
    Path(sys.argv[1]).touch()
    time.sleep(600)
NETWORKS["springs"], environments._install = SPRINGS, install
main(["pretrained", "springs"])
"""


def test_the_command_that_is_told_to_end_leaves_nothing(index: Path) -> None:
    stopped = start(index, COMMAND, str(index / "log"))
    wait_for(index / "log")
    stopped.terminate()
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert errors == "error: interrupted; 0 of 1 networks are measured\n"
    assert left_behind(index) == []
