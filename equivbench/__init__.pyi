from collections.abc import Sequence
from pathlib import Path

from equivbench.errors import EquivbenchError as EquivbenchError
from equivbench.errors import EquivbenchWarning as EquivbenchWarning
from equivbench.errors import FailedError as FailedError
from equivbench.errors import IncomparableError as IncomparableError
from equivbench.errors import InterruptedRunError as InterruptedRunError
from equivbench.errors import ModelError as ModelError
from equivbench.errors import UsageError as UsageError
from equivbench.execution.executors import Callback
from equivbench.gap.efficiency import PairGap as PairGap
from equivbench.gap.efficiency import PairGaps as PairGaps
from equivbench.gap.efficiency import efficiency_gap as efficiency_gap
from equivbench.kernels.backend import Backend as Backend
from equivbench.kernels.backend import Kernel as Kernel
from equivbench.kernels.backend import UnsupportedError as UnsupportedError
from equivbench.measure.asserting import assert_equivariant as assert_equivariant
from equivbench.measure.equivariance import measure_equivariance as measure_equivariance
from equivbench.measure.measurement import Measurement as Measurement
from equivbench.records.collection import RunRecords as RunRecords
from equivbench.records.schema import RunRecord as RunRecord
from equivbench.records.store import load_results as load_results
from equivbench.registry import register_dataset as register_dataset
from equivbench.registry import register_executor as register_executor
from equivbench.registry import register_kernel_backend as register_kernel_backend
from equivbench.registry import register_model as register_model
from equivbench.registry import register_pair as register_pair
from equivbench.registry import register_task as register_task
from equivbench.report import plot as plot
from equivbench.request import Forces
from equivbench.specs import ArmPreset as ArmPreset
from equivbench.specs import ArmSpec as ArmSpec
from equivbench.specs import DatasetSpec as DatasetSpec
from equivbench.specs import ExecutorSpec as ExecutorSpec
from equivbench.specs import Field as Field
from equivbench.specs import KernelBackendSpec as KernelBackendSpec
from equivbench.specs import MatchSpec as MatchSpec
from equivbench.specs import ModelSpec as ModelSpec
from equivbench.specs import PairPreset as PairPreset
from equivbench.specs import PairSpec as PairSpec
from equivbench.specs import Precision, Preset
from equivbench.specs import Recipe as Recipe
from equivbench.specs import TargetLoss as TargetLoss
from equivbench.specs import TaskSpec as TaskSpec
from equivbench.specs import simple_pair as simple_pair
from equivbench.symmetry.averaging import average_over_rotations as average_over_rotations
from equivbench.symmetry.decomposition import Decomposition as Decomposition
from equivbench.symmetry.decomposition import decompose as decompose
from equivbench.symmetry.rotations import octahedral_rotations as octahedral_rotations
from equivbench.symmetry.rotations import random_rotations as random_rotations
from equivbench.tasks.arrays import ArrayData as ArrayData
from equivbench.tasks.arrays import ArrayTask as ArrayTask
from equivbench.tasks.base import Card as Card
from equivbench.tasks.base import DatasetSource as DatasetSource
from equivbench.tasks.base import Feedback as Feedback
from equivbench.tasks.base import Split as Split
from equivbench.tasks.base import Task as Task
from equivbench.tasks.base import TaskData as TaskData
from equivbench.tasks.clouds import CloudData as CloudData
from equivbench.tasks.clouds import CloudTask as CloudTask
from equivbench.tasks.forcefield.foreign.adapting import adapt as adapt

__version__: str

# The keywords are the fields of equivbench.request.RunRequest; a test compares them.
def run(
    pair: str | Sequence[str] = (),
    budget: str | None = None,
    seeds: str | Sequence[int] | None = None,
    device: str = "auto",
    out: str | Path = "results",
    *,
    callback: Callback | None = None,
    arms: str | Sequence[str] = (),
    n_seeds: int | None = None,
    preset: Preset = "small",
    dataset: str | None = None,
    devices: str | Sequence[str] | None = None,
    devices_per_arm: int = 1,
    threads: int | None = None,
    kernels: str | None = None,
    forces: Forces | None = None,
    precision: Precision | None = None,
    rungs: int | None = None,
    extend: float | None = None,
    snapshots: bool = False,
    keep_weights: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    executor: str = "local",
    executor_option: Sequence[str] = (),
    workers: int | None = None,
    detach: bool = False,
) -> RunRecords: ...
