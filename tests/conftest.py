"""Settings shared by all tests; the helpers that tests import lie in ``tests/support``."""

from hypothesis import settings
from jaxtyping import install_import_hook

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
