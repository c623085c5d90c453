from equivbench.errors import EquivbenchError as EquivbenchError
from equivbench.execution.api import run as run
from equivbench.gap.efficiency import efficiency_gap as efficiency_gap
from equivbench.measure.equivariance import Measurement as Measurement
from equivbench.measure.equivariance import measure_equivariance as measure_equivariance
from equivbench.records.schema import RunRecord as RunRecord
from equivbench.records.store import load_results as load_results
from equivbench.registration import register_dataset as register_dataset
from equivbench.registration import register_kernel_backend as register_kernel_backend
from equivbench.registration import register_model as register_model
from equivbench.registration import register_pair as register_pair
from equivbench.registration import register_task as register_task
from equivbench.symmetry.decomposition import Decomposition as Decomposition
from equivbench.symmetry.decomposition import decompose as decompose
from equivbench.symmetry.rotations import octahedral_rotations as octahedral_rotations
from equivbench.symmetry.rotations import random_rotations as random_rotations

__version__: str
