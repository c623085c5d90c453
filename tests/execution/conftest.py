"""A toy package with entry points, installed in a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import running
from running import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench with the toy package installed."""
    bench = Bench(tmp_path)
    (tmp_path / "site").mkdir()
    shutil.copy(Path(running.__file__).with_name("toy_arms.py"), tmp_path / "site" / "toy_arms.py")
    bench.entry_point("toy_arms", "toy-arms")
    return bench
