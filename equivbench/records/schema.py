"""The run record, field by field, as contract section 3 has it; the JSON Schema is generated from
these types."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1
RULES_VERSION = 1

Status = Literal["completed", "diverged", "failed", "interrupted"]
Number = float | None


class NotMeasured(msgspec.Struct, frozen=True):
    """Stands in for a value that was not measured and says why; in a record the value is null and
    the reason stands in ``reasons``."""

    reason: str


class _Part(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """A piece of a record; unknown fields are refused so that a typing error cannot pass as a
    measurement."""


class DatasetRecord(_Part):
    """The data that was trained and tested on."""

    name: str
    version: str
    sha256: str
    sizes: dict[str, int]
    """Samples in each split, and ``fraction`` of the training split in parts per thousand where it
    was cut."""


class Matching(_Part):
    """What makes the pair fair."""

    what: str
    """What the two arms share or are matched on, and why that is fair."""
    hardware: str | None
    target: str
    measured: dict[str, float]
    """The matched quantity per arm, as measured on ``hardware``."""


class ModelRecord(_Part):
    """The network and its symmetry, declared and measured."""

    name: str
    symmetry: Literal["none", "octahedral", "so3", "o3"]
    symmetry_verified: bool | None
    parameters: int
    kernels: str
    config: dict[str, Any]
    wrapper: str | None = None


class RecipeRecord(_Part):
    """How the arm was trained."""

    optimizer: str
    learning_rate: float
    batch_size: int
    augmentation: Literal["none", "haar"]
    precision: str
    compile: str | None
    ema: float
    tuned_at: str | None
    tuning_log_sha256: str | None
    weight_decay: float
    warmup_steps: int
    clip_norm: float | None
    augmentation_fraction: float = 1.0
    """Probability with which a sample was rotated, where ``augmentation`` is not none."""


class BudgetRecord(_Part):
    """The limit in its own unit and what was used of it; seconds are ``clock.train +
    clock.data``."""

    kind: Literal["seconds", "steps", "samples"]
    limit: float
    spent: float
    overshoot: float
    extends: float | None = None
    """The limit of the run that this one prolongs (``--extend``), else null."""


class ClockRecord(_Part):
    """Seconds by part; ``wall`` is the time for which the run held the machine and equals the sum
    of the parts."""

    train: float
    compile: float
    data: float
    evaluate: float
    checkpoint: float
    timing: float
    """Steps repeated in alternation with the other arm to time them, off the budget."""
    other: float
    wall: float


class StepSeconds(_Part):
    """Percentiles of the seconds of a training step, data included."""

    p10: float
    p50: float
    p90: float


class Throughput(_Part):
    """Training speed, steady state: without compilation."""

    samples_per_second: Number
    """Batch size over mean step seconds (train + data) of the alternated timing."""
    step_seconds: StepSeconds | None
    alternated_with: str | None = None


class Inference(_Part):
    """Speed of forward passes."""

    samples_per_second: Number
    twirl: dict[str, float] = {}
    """Samples a second of the same model averaged over n rotations at test time, by n."""


class Memory(_Part):
    """Peak memory of the run: the device's on a GPU, the process's on a CPU."""

    peak_bytes: int | None


class Test(_Part):
    """One evaluation on the test set with the EMA weights (units: the task's board metric)."""

    objective: Number
    total: Number
    twirled: Number
    equivariance: Number
    share: Number
    floor: Number
    group: Literal["so3", "octahedral"]
    explained: Number
    by: dict[str, TestPart]


class TestPart(_Part):
    """The same decomposition for one part of the test set (a component, a flow time)."""

    total: Number
    twirled: Number
    equivariance: Number
    share: Number


class TracePoint(_Part):
    """One evaluation during training."""

    step: int
    samples: int
    train_seconds: float
    """Budget seconds (train + data) spent when the evaluation began."""
    test: Test


class GroupErrors(_Part):
    """Errors by independent group (molecule, cluster) at each trace point: what the gap's intervals
    resample."""

    weights: list[float]
    """Rows behind each group (atoms of all its conformations)."""
    total: list[list[float]]
    """[trace point][group] mean total of the group's rows."""
    equivariance: list[list[float]]


class Environment(_Part):
    """Where the run happened; no host name."""

    machine_key: str
    device: str
    driver: str | None
    cpu: str
    threads: int
    python: str
    packages: dict[str, str]


class Git(_Part):
    """The checkout the package was imported from; nulls for an installed wheel."""

    commit: str | None
    dirty: bool | None


class RunRecord(_Part):
    """One arm, one seed, one budget. A value that was not measured is null and its path has an
    entry in ``reasons``."""

    schema_version: int
    rules_version: int
    run_id: str
    created: str
    status: Status
    reason: str | None
    preset: str
    command: str
    task: str
    dataset: DatasetRecord
    pair: str
    """Its name within the task: ``vector`` for ``forcefield/vector``."""
    arm: str
    matching: Matching
    model: ModelRecord
    recipe: RecipeRecord
    variant: dict[str, str]
    """Switches that make runs incomparable: ``forces`` (direct, conservative) and whatever a later
    task adds."""
    seed: int
    budget: BudgetRecord
    clock: ClockRecord
    restarts: int
    lost_seconds: float
    steps: int
    samples: int
    epochs: float
    throughput: Throughput
    inference: Inference
    memory: Memory
    flops_per_sample: Number
    energy_joules: Number
    trace: list[TracePoint]
    groups: GroupErrors | None
    final: Test | None
    final_raw: Test | None
    """The same evaluation with the raw (not averaged) weights, at the end."""
    environment: Environment
    git: Git
    reasons: dict[str, str]
    baselines: dict[str, float] = {}
    """Board metric on the same test set of predictors that need no training: ``zero``, ``linear``
    (the best linear or isotropic Gaussian one, fitted on the training split)."""
