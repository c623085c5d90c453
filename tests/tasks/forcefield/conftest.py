"""The shipped data, loaded once."""

import pytest

from equivbench.tasks.base import TaskData
from equivbench.tasks.forcefield.sources import gfn2_small
from equivbench.tasks.forcefield.table import LAYOUT
from equivbench.tasks.forcefield.task import ForceField
from equivbench.tasks.storage import RaggedTable


@pytest.fixture(scope="session")
def shipped() -> TaskData:
    return gfn2_small().load()


@pytest.fixture(scope="session")
def table() -> RaggedTable:
    return LAYOUT.read(gfn2_small().path())[0]


@pytest.fixture(scope="session")
def task() -> ForceField:
    return ForceField()
