"""The mean over seeds of one value a seed, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equivbench.gap.quantities import UNKNOWN, Quantity, exponential, plain
from equivbench.gap.resampling import student


def over_seeds(values: Sequence[float], *, geometric: bool = False) -> Quantity:
    """The mean of ``values`` [seeds] with its 95% Student interval, open with one seed, unknown
    with none.

    ``geometric``: mean and interval of the logarithms, for losses; a loss that is not positive has
    none, and the plain mean is taken then.
    """
    if not values:
        return UNKNOWN
    array = np.asarray(values, dtype=np.float64)
    logarithmic = geometric and bool((array > 0).all())
    each = np.log(array) if logarithmic else array
    band = student(each.mean(keepdims=True), each[:, None], None)
    return exponential(band) if logarithmic else plain(band)
