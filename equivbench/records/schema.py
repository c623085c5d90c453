"""The run record, field by field.

The JSON Schema is generated from these types: the docstrings of classes and fields are its
descriptions. To add a field, declare it here, fill it in :mod:`equivbench.training.record`, and
write the shipped schema again (:mod:`equivbench.records.json_schema`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from equivbench.tabular import Tabular

SCHEMA_VERSION = 2
RULES_VERSION = 2

Status = Literal["completed", "diverged", "failed", "interrupted"]
ENDED: tuple[Status, ...] = ("completed", "diverged")
"""The status of a run that came to its end."""
Number = float | None


class NotMeasured(msgspec.Struct, frozen=True):
    """Takes the place of a value that was not measured and says why.

    In a record the value is null and its reason is an entry of ``reasons``.
    """

    reason: str


class _Part(
    msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=False, gc=False
):
    """A part of a record; unknown fields are refused, so that a misspelt one is not lost.

    No part refers to what refers to it: the collector of such circles need not walk through
    thousands of records.
    """


class DatasetRecord(_Part):
    """The data set that was used for training and testing."""

    name: str
    version: str
    sha256: str
    sizes: dict[str, int]
    """Number of samples in each split. ``fraction`` is the part of the training split that was
    used, in thousandths, if not all of it was."""


class Matching(_Part):
    """What was made equal between the two arms of the pair."""

    what: str
    """What the arms share or are matched on, and why the comparison is fair."""
    hardware: str | None
    """The hardware on which the arms were matched; null if the match does not depend on it."""
    target: str
    """The quantity that was matched, and how closely."""
    measured: dict[str, float]
    """The matched quantity of each arm, as measured on ``hardware``."""


class ModelRecord(_Part):
    """The network, with its declared symmetry and whether a measurement confirmed it."""

    name: str
    symmetry: Literal["none", "octahedral", "so3", "o3"]
    """The symmetry that the model declares."""
    symmetry_verified: bool | None
    """Whether the model has the symmetry that it declares; null if that could not be decided."""
    parameters: int | None
    """Number of trainable parameters; null if the run ended before the network was built."""
    kernels: str
    """The backend that computed the equivariant operations."""
    config: dict[str, Any]
    """Arguments with which the model was built."""
    wrapper: str | None = None
    """The wrapper that makes the model equivariant at test time, for example ``twirl-8``."""
    symmetry_reason: str | None = None
    """What was measured that decided ``symmetry_verified``; null if that is null."""


class RecipeRecord(_Part):
    """How the arm was trained."""

    optimizer: str
    learning_rate: float
    batch_size: int
    """Samples in a training step."""
    augmentation: Literal["none", "haar"]
    """``haar``: every sample is rotated by a random rotation, uniform on SO(3)."""
    precision: str
    """``float32``, ``tf32`` or ``bf16``, as used on the device."""
    compile: str | None
    """How the model was compiled; null if it ran eagerly."""
    ema: float
    """Largest decay of the exponential moving average of the weights, measured beside them."""
    tuned_at: str | None
    """Budget of a trial of ``equivbench tune`` that chose this recipe, for example ``20s``."""
    tuning_log_sha256: str | None
    """SHA-256 of the log of that tuning."""
    weight_decay: float
    warmup_steps: int
    """Steps over which the learning rate rises linearly to its full value."""
    clip_norm: float | None
    """Largest norm of the gradient; larger gradients are scaled down to it."""
    augmentation_fraction: float = 1.0
    """Probability with which a sample is rotated, if ``augmentation`` is not none."""
    symmetry_loss: float = 0.0
    """Weight of the penalty on what the predictions lack to be equivariant; 0: there was none."""
    symmetry_loss_kind: Literal["rotated-copy", "rotational-gradient"] = "rotated-copy"
    """What was penalised. ``rotated-copy``: the squared difference between the prediction, rotated,
    and the prediction on a rotated copy of each sample, weighed in units of the objective a unit of
    the board metric. ``rotational-gradient``: the length of the derivatives of each sample's energy
    by a rotation about three axes, weighed in units of the objective an eV."""


class BudgetRecord(_Part):
    """The limit of the training, and how much of it was used."""

    kind: Literal["seconds", "steps", "samples"]
    """The unit of ``limit``, ``spent``, ``overshoot`` and ``extends``. Seconds are those of
    ``clock.train`` and ``clock.data``."""
    limit: float
    spent: float
    overshoot: float
    """How much more than ``limit`` was spent."""
    extends: float | None = None
    """The limit of the run that this run continues (``--extend``), otherwise null."""


class ClockRecord(_Part):
    """Seconds spent in each part of the run. For an arm on several devices they are device seconds:
    a second of all K of them counts as K."""

    train: float
    """Forward and backward passes and updates of the weights."""
    compile: float
    """Compilation of the model, starting from an empty cache."""
    data: float
    """Loading, rotating and assembling batches."""
    rungs: float
    """Branches off the training that give the results of smaller budgets: their steps, and the
    evaluations at their ends."""
    evaluate: float
    """Evaluations on the test set."""
    checkpoint: float
    """Writing checkpoints."""
    timing: float
    """Training steps repeated in alternation with the other arm to time them, and timed forward
    passes; not part of the budget."""
    other: float
    wall: float
    """Total time for which the run used the machine: the sum of all parts."""
    stalled: float
    """Time in which the process had work and did not run: it was stopped, or others held its cores.
    It counts in no other part, so not in the budget."""


class MachineShare(_Part):
    """What share of its machine the run got."""

    cpu_share: float
    """CPU seconds of the process, divided by wall seconds times threads."""
    switches: float
    """Involuntary context switches a second."""
    load: Number
    """Highest load average (runnable threads over one minute) seen during the run."""
    steal: Number
    """Part of the machine's CPU time that a hypervisor gave to others."""
    throttled_seconds: float
    """Time for which a container's quota held its processes back."""
    p90_over_p10: Number
    """Spread of the seconds that a training step took: 90th percentile divided by the 10th."""
    stalled_seconds: float
    """``clock.stalled``."""


class StepSeconds(_Part):
    """Percentiles of the seconds that one training step takes, including its data."""

    p10: float
    p50: float
    p90: float


class Throughput(_Part):
    """Speed of training after compilation, of each device."""

    samples_per_second: Number
    """Batch size divided by the mean device seconds of a step, from the alternated timing."""
    step_seconds: StepSeconds | None
    alternated_with: str | None = None
    """The arms whose timed steps alternated with the steps of this arm."""
    blocks: list[float] = []
    """Seconds a step of each timed block, in order. Block i of this arm was timed beside block i of
    the other arms of the contest."""
    scaling_efficiency: Number = None
    """For an arm on several devices: samples a second of all of them, divided by their number times
    those of one of them with the same batch, timed in alternation. Null for an arm on one
    device."""


class Inference(_Part):
    """Speed of forward passes without gradients, on one device."""

    samples_per_second: Number
    twirl: dict[str, float] = {}
    """Samples per second when predictions are averaged over n rotations at test time, by n; not
    measured of an arm in a wrapper."""


class Memory(_Part):
    """Peak memory of the run."""

    peak_bytes: int | None
    """The most allocated on the device while training, for a run on a GPU; used by the whole
    process for a run on a CPU. For an arm on several devices it is that of the first."""


class Test(_Part):
    """One evaluation on the test set. Errors are in the unit of the task's board metric."""

    samples: int
    """Test samples that were evaluated: all of the test set, or the fixed part of it on which
    rungs and trace are read."""
    rotations: int
    """Rotations under which each of them was evaluated."""
    objective: Number
    """The training objective on these samples."""
    total: Number
    """The board metric: mean squared error on the randomly rotated samples; equals ``twirled`` +
    ``equivariance``."""
    twirled: Number
    """The part of ``total`` that remains after averaging predictions over all rotations."""
    equivariance: Number
    """The part of ``total`` that is due to missing equivariance."""
    share: Number
    """``equivariance`` divided by ``total``."""
    floor: Number
    """The share that rounding, or interpolation on a grid, alone would cause."""
    group: Literal["so3", "o3", "octahedral"]
    """The group from which the rotations were drawn."""
    explained: Number
    """1 - total / baseline, with the baseline that the task declares."""
    over_best_untrained: Number
    """``total`` divided by that of the best predictor that needs no training, on the same
    samples."""
    by: dict[str, TestPart]
    """The same errors for parts of the test set, for example by element or by flow time."""
    errors: dict[str, Number] = {}
    """Mean squared errors of further outputs that are trained, by output, for example ``energy``
    (eV^2 a molecule)."""
    groups: GroupErrors | None = None
    """The errors of each independent group of the samples; null if they were not kept."""


class TestPart(_Part):
    """The errors on one part of the test set, as in ``Test``."""

    total: Number
    twirled: Number
    equivariance: Number
    share: Number
    over_best_untrained: Number = None


class GroupErrors(_Part):
    """Errors of each independent group of test samples (for example a molecule); confidence
    intervals resample these groups."""

    weights: list[float]
    """Number of rows (for example atoms) in each group."""
    total: list[float]
    """Mean ``total`` of the rows of each group."""
    equivariance: list[float]
    """Mean ``equivariance`` of the rows of each group."""


class Rung(_Part):
    """The annealed result of one budget: what a run with that budget gives."""

    budget: float
    """In the unit of ``budget.kind``."""
    step: int
    """Training steps of a run with this budget."""
    samples: int
    """Training samples that it sees."""
    train_seconds: float
    """Its seconds of training and data."""
    test: Test
    """For the last rung, that of the whole budget, on the whole test set; for the others on the
    part of it that ``final_on_part`` is read on."""


class TracePoint(_Part):
    """One evaluation during training, before the learning rate is cooled down."""

    step: int
    """Training steps made before the evaluation: 1, 2, 5, 10, 20, 50, ..."""
    samples: int
    """Training samples seen before the evaluation."""
    train_seconds: float
    """Seconds of training and data (``clock.train`` and ``clock.data``) before the evaluation."""
    test: Test
    """The weights themselves, on the part of the test set that rungs are read on."""
    ema: Test
    """The average of the weights, on the same."""


class Environment(_Part):
    """The machine and software of the run. It holds no host name."""

    machine_key: str
    """CPU model, number of threads and, if one was used, GPU model, with the slice of it or the
    power cap that it was given; then, if an arm had several devices, ``xK`` for K of them."""
    device: str
    """``cpu``, or the model of the GPU."""
    driver: str | None
    """Version of the GPU driver."""
    cpu: str
    threads: int
    """CPU threads that the run used, for each of its devices."""
    python: str
    packages: dict[str, str]
    """Versions of the packages that can change a result."""


class Attempt(_Part):
    """One process that worked on a run."""

    started: str
    """UTC, ISO 8601."""
    machine_key: str
    """The kind of machine that it worked on. A run is never continued on another kind: it starts
    afresh there."""
    ended: Literal["completed", "diverged", "failed", "interrupted", "died"]
    """``died``: it was gone without having said how it ended."""


class Git(_Part):
    """The git commit of the package; null if it was not imported from a checkout."""

    commit: str | None
    dirty: bool | None
    """Whether the checkout had uncommitted changes."""
    tree: str | None = None
    """Git's hash of the package's own folder at that commit: a commit that adds results or
    documentation leaves it as it is."""

    @property
    def version(self) -> str | None:
        """What tells the code from other code, as far as it was committed."""
        return self.tree or self.commit


class RunRecord(_Part, Tabular):
    """The result of training one arm with one seed and one budget.

    A value that was not measured is null, and ``reasons`` says why.
    """

    table_factory: ClassVar[str] = "equivbench.report.records:one_record_table"

    schema_version: int
    rules_version: int
    """Version of the benchmark's rules; results under different rules are not compared."""
    run_id: str
    created: str
    """Start of the run: UTC, ISO 8601."""
    status: Status
    reason: str | None
    """Why the run did not complete; null if it did."""
    preset: str
    command: str
    """A command that repeats the run."""
    task: str
    dataset: DatasetRecord
    pair: str
    """Name of the pair within the task: ``vector`` for ``forcefield/vector``."""
    arm: str
    """``equivariant``, ``augmented``, or the name of another arm of the pair."""
    matching: Matching
    model: ModelRecord
    recipe: RecipeRecord
    variant: dict[str, str]
    """Options of the task, such as ``forces`` (direct or conservative), another ``precision`` than
    the preset's where one was asked for, and labels of a sweep. Runs with different variants are
    not compared, unless all that differs is a ``precision`` that the device makes of the preset's
    in any case."""
    seed: int
    budget: BudgetRecord
    clock: ClockRecord
    restarts: int
    """How often the run was resumed after it had been stopped."""
    lost_seconds: float
    """Seconds of training that were repeated because of restarts."""
    steps: int
    samples: int
    """Training samples seen."""
    epochs: float
    """``samples`` divided by the size of the training split."""
    throughput: Throughput
    inference: Inference
    memory: Memory
    flops_per_sample: Number
    """Floating-point operations of a forward pass for one sample, by the model's own formula."""
    energy_joules: Number
    """Energy that the device used during the run."""
    rungs: list[Rung]
    """The annealed results of smaller budgets and, last, of the whole one, by budget."""
    trace: list[TracePoint]
    """Evaluations of the weights and of their average at fixed numbers of steps, in order, until
    the last cooldown begins."""
    final: Test | None
    """The result of the budget, which is the ``test`` of the last rung: the weights at its end,
    after the learning rate has fallen to zero, on the whole test set."""
    final_on_part: Test | None
    """The same weights on the part of the test set on which the other rungs and the trace are
    read."""
    final_raw: Test | None
    """The weights where the last cooldown begins, after 80% of the budget, on the whole test
    set."""
    final_ema: Test | None
    """The average of the weights where the last cooldown begins, on the whole test set."""
    out_of_distribution: dict[str, Test]
    """The weights of ``final`` on further test sets that differ from the training data, by name,
    for example ``larger-molecules``."""
    environment: Environment
    git: Git
    reasons: dict[str, str]
    """Why values are null, by their path in the record, for example ``final.floor``."""
    contest: str | None
    """Shared by the records of the arms that took turns with one seed on one machine."""
    machine_share: MachineShare | None
    weights_sha256: str | None = None
    """SHA-256 of the file with the weights of ``final`` (safetensors), which `equivbench results
    audit` measures again; null for a run without a result, and for one that kept no weights."""
    baselines: dict[str, float] = {}
    """Board metric on the same test set of predictors that need no training: ``zero``, and
    ``linear``, the best linear or isotropic Gaussian predictor, fitted on the training split."""
    unit: str | None = None
    """Digest of all that makes the contest of this run that one and no other, wherever it runs: the
    jobs of its arms, the checksum of the data, the version of the code. The runs of one contest
    share it, and so does a repetition."""
    devices: list[str] = []
    """What the arm computed on: ``cpu``, ``cuda:1``; ``cpu:1`` is the second of several equal
    shares of the cores that the run could use. Names of one machine, which mean nothing on
    another."""
    devices_per_arm: int = 1
    """How many devices computed each training step together, every one a part of its samples."""
    beside: int = 0
    """How many other contests the same command had under way on further devices or shares of the
    machine, at most."""
    attempts: list[Attempt] = []
    """The processes that worked on this contest, in order; the last one wrote this record, and
    ended as ``status`` says."""

    def __repr__(self) -> str:
        ended: str = self.status
        if self.final is not None and self.final.total is not None:
            share = "" if self.final.share is None else f", share {self.final.share:.2g}"
            ended = f"loss {self.final.total:.3g}{share}"
        return f"<RunRecord {self.task}/{self.pair} {self.arm}, {self.run_id}: {ended}>"
