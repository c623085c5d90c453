"""What no real arrangement of atoms has: two of them in one place. Imports no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLOSEST = 0.4
"""A: no two atoms of a real structure are nearer; the shortest bond, of H2, has 0.74."""
TOO_NEAR = f"with atoms nearer than {CLOSEST} A"
"""Why a sample is left out of a data set."""


def closest(pos: NDArray[np.floating]) -> float:
    """The least distance between two of ``pos`` [atoms, 3], infinite for one atom."""
    from scipy.spatial.distance import pdist

    return float(pdist(pos).min(initial=np.inf)) if len(pos) > 1 else np.inf
