"""Settings shared by all tests; the helpers that tests import lie in ``tests/support``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from running import Bench

# Shapes and dtypes that annotations promise are checked at every call while tests run, and cost
# nothing otherwise.
for checked in (
    "equivbench.symmetry.rotations",
    "equivbench.symmetry.types",
    "equivbench.kernels.neighbours",
    "equivbench.tasks.voxel.voxelise",
):
    install_import_hook(checked, "beartype.beartype")

# The same examples on every run, and no verdict that depends on how busy the machine is.
settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.load_profile("reproducible")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """The command line with the toy package installed, entry points and all."""
    import running

    bench = running.Bench(tmp_path)
    (tmp_path / "site").mkdir()
    shutil.copy(Path(running.__file__).with_name("toy_arms.py"), tmp_path / "site" / "toy_arms.py")
    bench.entry_point("toy_arms", "toy-arms")
    return bench
