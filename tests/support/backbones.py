"""The columns of a small archive of molecules, for tests of archives of any task."""

import numpy as np
from numpy.typing import DTypeLike

from equivbench.tasks.storage import Layout, RaggedColumn


def backbone_layout(positions: DTypeLike) -> Layout:
    """Positions of so many bits, and molecules with some shapes each."""
    return Layout(
        kind="backbone",
        columns={
            "pos": RaggedColumn("item", positions, (3,)),
            "n_atoms": RaggedColumn("sample", np.int32),
            "molecule": RaggedColumn("sample", np.int32),
            "split": RaggedColumn("sample", np.uint8),
            "name": RaggedColumn("unit", np.bytes_),
        },
        unit="molecule",
        items="atoms",
        samples="shapes",
        units={"pos": "A"},
        split_rule="none",
    )
