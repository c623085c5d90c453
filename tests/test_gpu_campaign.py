"""What is prepared for a GPU runs without one: the packages that travel, the steps of a call."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import Distribution
from pathlib import Path

import gpu_site
import pytest

import equivbench

ROOT = Path(__file__).parents[1]


def campaign(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "tools" / "gpu_campaign.sh"), *arguments],
        capture_output=True,
        encoding="utf-8",
        env={
            **os.environ,
            "OUT": str(out),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        timeout=300,
        check=False,
    )


def test_a_checkout_has_the_entry_points_that_it_would_be_installed_with(tmp_path: Path) -> None:
    gpu_site.write_metadata(tmp_path)
    (folder,) = tmp_path.iterdir()
    made = Distribution.at(folder)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {(point.group, point.name, point.value) for point in made.entry_points}
    declared = {
        (group, name, where)
        for group, points in project["entry-points"].items()
        for name, where in points.items()
    }
    assert found == declared
    assert (made.metadata["Name"], made.version) == ("equivbench", equivbench.__version__)


def test_nothing_that_the_machine_has_is_hidden_by_what_is_carried(tmp_path: Path) -> None:
    files = {
        "numpy/__init__.py": "raise ImportError",
        "numpy.libs/x": "",
        "no_such_module/__init__.py": "",
        "no_such_module-1.0.dist-info/METADATA": "",
        "no_such_file.py": "",
    }
    for name, text in files.items():
        file = tmp_path / "packed" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    archive = tmp_path / "pack.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(tmp_path / "packed", ".")
    site = tmp_path / "site"
    site.mkdir()
    assert gpu_site.unpack(archive, site) == {"no_such_module", "no_such_file.py"}
    assert not (site / "numpy").exists()
    assert (site / "no_such_module" / "__init__.py").is_file()
    assert (site / "no_such_module-1.0.dist-info" / "METADATA").is_file()


def test_a_call_says_what_it_did_and_keeps_what_was_printed(tmp_path: Path) -> None:
    # The results folder is not there, so that this step fails and no other is asked for.
    done = campaign(tmp_path / "out", "A", "--device", "cpu", "--only", "validate")
    assert done.returncode == 1, done.stderr
    log = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")
    assert "site: done" in log
    assert "validate: exit" in log
    assert "something failed, 0 steps had no time left" in log
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"log.txt", "A.tar.gz"}
    with tarfile.open(tmp_path / "out" / "A.tar.gz") as kept:
        assert {"A/site.txt", "A/validate.txt", "A/log.txt"} <= set(kept.getnames())


def test_a_call_without_time_begins_nothing(tmp_path: Path) -> None:
    done = campaign(tmp_path / "out", "B", "--device", "cpu", "--only", "gap", "--seconds", "5")
    assert done.returncode == 0, done.stderr
    assert "gap: no time left" in done.stdout
    assert "nothing failed, 2 steps had no time left" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("C",), ("A", "--device"), ("A", "--what", "x")])
def test_other_calls_are_told_how_to_be_made(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = campaign(tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert "gpu_campaign.sh" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_pair_is_run_and_validated_as_it_will_be_on_a_gpu(tmp_path: Path) -> None:
    done = campaign(tmp_path / "out", "A", "--device", "cpu", "--only", "run|validate")
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(tmp_path / "out" / "A.tar.gz") as kept:
        files = [Path(name) for name in kept.getnames() if name.endswith(".json")]
    records = [file for file in files if ".plan" not in file.parts]
    assert len(records) == 2
