"""The toy package in an environment of its own, made once for the tests of a process."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

pytest.importorskip("ase", reason="ASE is not installed (extra 'ase')")
# Importing pip would take setuptools' distutils out of the process, with which torch compiles.
if not any(importlib.metadata.distributions(name="pip")):
    pytest.skip("pip is not installed", allow_module_level=True)

from toy_pretrained import FAMILY, make_wheel, offline

from equivbench.pretrained.environments import ready_python


@pytest.fixture(scope="session")
def toy_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of the toys and their environment, made from it."""
    folder = tmp_path_factory.mktemp("index")
    make_wheel(folder, "toy-networks", "1.0")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in offline(folder).items():
            patch.setenv(name, value)
        ready_python(FAMILY)
    return folder


@pytest.fixture
def toys(toy_index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That environment's Python, with the settings under which it was made."""
    for name, value in offline(toy_index).items():
        monkeypatch.setenv(name, value)
    return ready_python(FAMILY)
