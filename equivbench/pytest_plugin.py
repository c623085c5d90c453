"""What pytest gets from equivbench: the fixture ``assert_equivariant`` and the marker
``equivariant``, whose keywords are the defaults of the fixture in that test. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "equivariant(group='so3', rotations=4, seed=0): defaults of the fixture "
        "assert_equivariant in this test.",
    )


@pytest.fixture
def assert_equivariant(request: pytest.FixtureRequest) -> Callable[..., None]:
    """:func:`equivbench.assert_equivariant`, with what the test's marker ``equivariant`` says."""
    import equivbench

    marker = request.node.get_closest_marker("equivariant")
    asked: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    return partial(equivbench.assert_equivariant, **asked)
