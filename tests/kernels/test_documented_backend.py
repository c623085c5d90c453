"""The backend that docs/kernels.md shows, as it stands there."""

import re
from pathlib import Path

import pytest

from equivbench.kernels.cases import case
from equivbench.kernels.measuring import prepare
from equivbench.records.kernels import MODES
from equivbench.registry import KERNEL_BACKENDS

DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"


@pytest.fixture
def documented():
    KERNEL_BACKENDS.entries()
    before = KERNEL_BACKENDS.snapshot()
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    exec(compile(code, str(DOCS), "exec"), {"__name__": "documented"})
    yield "mine"
    KERNEL_BACKENDS.restore(before)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_right_and_can_be_timed(documented, mode):
    assert prepare(case("linear-c64-l2"), mode, documented).round(0.01) > 0
