"""What no real arrangement of atoms has: two of them in one place. Imports no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLOSEST = 0.4
"""A: no two atoms of a real structure are nearer; the shortest bond, of H2, has 0.74."""
TOO_NEAR = f"with atoms nearer than {CLOSEST} A"
"""Why a sample is left out of a data set."""


_FEW = 256
"""Points of which all pairs are cheaper than a tree; their distances take at most 260 kB."""


def closest(pos: NDArray[np.floating]) -> float:
    """The least distance between two of ``pos`` [atoms, 3] (finite), infinite for one atom. Memory
    grows with the number of atoms, not of pairs."""
    from scipy.spatial import cKDTree
    from scipy.spatial.distance import pdist

    if len(pos) <= _FEW:
        return float(pdist(pos).min(initial=np.inf)) if len(pos) > 1 else np.inf
    # Of each point the nearest is itself, or one in the same place.
    distances, _ = cKDTree(pos).query(pos, k=[2])
    return float(np.min(distances))
