"""What a task, data set, model, pair and kernel backend are, as they are declared to the registry.

Pure data: importing this file, or a file that only declares things, imports no torch, so that
commands which list names stay fast.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from equivbench.errors import UsageError, unknown_name

Preset = Literal["dev", "small", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Augmentation = Literal["none", "haar"]
Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SymmetryLossKind = Literal["rotated-copy", "rotational-gradient"]
Optimizer = Literal["adamw", "adam", "nadam", "radam", "adamax", "rmsprop", "sgd"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
Symmetry = Literal["none", "octahedral", "so3", "o3"]
SYMMETRIES: tuple[Symmetry, ...] = get_args(Symmetry)
Role = Literal["sample", "noise", "derived", "output"]
Group = Literal["so3", "o3", "octahedral"]
Prediction = Literal["energy", "forces"]
"""What a network of another package predicts."""
By = Literal["stratum", "magnitude", "component", "irrep", "layer"]
"""What the parts of a measurement are of. ``stratum``: the task's own (element, flow time);
``magnitude``: rows in quarters by the size of their target; ``component``: the irreps of the
prediction's symmetry type; ``irrep``: the irreps of the group; ``layer``: the model's features."""
Mode = Literal["forward", "backward", "double_backward"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""What of a kernel is timed; each holds the passes before it."""
Contestant = Literal["equivariant", "augmented"]
CONTESTANTS: tuple[str, ...] = get_args(Contestant)
"""The arms that a gap compares; a pair may have further ones, which are shown beside them."""
EQUIVARIANT, AUGMENTED = CONTESTANTS
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}")
"""What may be part of the path of a record: the names of tasks, pairs and arms."""
Factory = str | Callable[..., Any]
"""A callable, or ``package.module:attribute`` so that declaring it imports nothing."""


@dataclass(frozen=True)
class Field:
    """A named tensor of a batch, with its symmetry type.

    ``symmetry`` is in e3nn's notation over the last axis (``"0e"``, ``"1o"``, ``"4x0e + 1o"``),
    ``"ij=ji"`` for a symmetric matrix, or ``"voxel(IRREPS)"`` for a grid whose last axes are
    channels, x, y, z. ``per`` says what the leading axis counts: ``"graph"`` (one row a sample) or
    ``"node"`` (rows belong to the sample that the batch's index field names); ``"none"`` is
    invariant bookkeeping such as edge lists. ``shape`` is for people: ``("atoms", 3)``.
    """

    name: str
    shape: tuple[str | int, ...]
    dtype: str
    symmetry: str
    per: Literal["graph", "node", "none"]
    unit: str
    role: Role
    summary: str = ""


@dataclass(frozen=True)
class TaskSpec:
    """A task: ``factory()`` returns an :class:`equivbench.tasks.base.Task`.

    All but its name and what it is repeat what the task class declares, for commands that must not
    import it; a task that gives them here takes its own from the same table.
    """

    name: str
    summary: str
    factory: Factory
    fields: tuple[Field, ...] = ()
    board_unit: str = ""
    reported: tuple[str, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group: Group = "so3"
    test_points: int = 1
    feedback_part: float = 0.0
    """The part of the training batches for which the network is asked twice, by the class's
    ``feedback``; where there is some, an evaluation asks once more for every sample."""


@dataclass(frozen=True)
class ModelSpec:
    """A network for one task: ``build(config)`` returns a ``torch.nn.Module``.

    ``requires`` names derived inputs the data pipeline must build, with their parameter
    (``{"edge_index": 5.0}``: a cutoff in A). ``symmetry`` is a declaration; it is measured in every
    run.
    """

    name: str
    task: str
    symmetry: Symmetry
    build: Factory
    requires: Mapping[str, float] = field(default_factory=dict)
    summary: str = ""
    kernels: bool = False
    """Whether ``config["kernels"]`` names the backend of its equivariant operations (``run
    --kernels``)."""
    operations: tuple[str, ...] = ()
    """The operations that it takes from that backend, by their names; none: only a network that is
    built tells."""

    def __post_init__(self) -> None:
        if self.symmetry not in SYMMETRIES:
            raise UsageError(
                f"model {self.name!r}: symmetry {self.symmetry!r} is not one of "
                f"{', '.join(SYMMETRIES)}"
            )


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: ``factory()`` returns an :class:`equivbench.tasks.base.DatasetSource`.

    What records of it are held against (:mod:`equivbench.records.declared`): ``checksums``, the
    SHA-256 by version where the content is the same for everybody, for these versions ``sizes``,
    the samples in each split, and ``further``, those of each further test set that its runs end
    with; and ``lowest_loss``, the board metric that the rounding of the stored labels leaves to
    whoever knows them exactly: a network below it would predict digits that are not there.
    """

    name: str
    task: str
    summary: str
    factory: Factory
    checksums: Mapping[str, str] = field(default_factory=dict)
    lowest_loss: float | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    further: Mapping[str, int] = field(default_factory=dict)

    @property
    def only_tests(self) -> bool:
        """Whether it is known to have no samples to train on."""
        return self.sizes.get("train") == 0


@dataclass(frozen=True)
class KernelBackendSpec:
    """A library that provides equivariant operations: ``factory()`` returns an
    :class:`equivbench.kernels.backend.Backend`.

    ``needs`` names the modules that must be importable and ``install`` the command that brings
    them; ``devices`` the kinds of device it runs on. Its own ``missing`` has the last word.
    """

    name: str
    summary: str
    factory: Factory
    needs: tuple[str, ...] = ()
    install: str = ""
    devices: tuple[str, ...] = ("cpu", "cuda")
    slow_to_build: bool = False
    """Whether it compiles for tens of seconds a case: quick looks leave it out unless it is
    named."""
    operations: tuple[str, ...] = ()
    """Those that it does, by their names, if not at every size; none: only its ``build`` tells."""
    max_derivatives: int = 2
    """How often they can be differentiated: twice where forces that come from an energy are
    trained."""
    cpu_operations: tuple[str, ...] = ()
    """Those of its operations that it does on a CPU alone."""

    def operations_on(self, device: str) -> set[str]:
        """Those that it does on this kind of ``device``."""
        if device not in self.devices:
            return set()
        return set(self.operations) - (set(self.cpu_operations) if device != "cpu" else set())


@dataclass(frozen=True)
class ExecutorSpec:
    """A way to run plans: ``factory()`` returns an
    :class:`equivbench.execution.executors.Executor`."""

    name: str
    summary: str
    factory: Factory


@dataclass(frozen=True)
class Recipe:
    """How an arm is trained: by default AdamW; linear warm-up then a constant rate, EMA min(ema,
    (1+n)/(10+n))."""

    learning_rate: float
    batch_size: int
    augmentation: Augmentation
    weight_decay: float = 0.01
    warmup_steps: int = 50
    clip_norm: float | None = 10.0
    ema: float = 0.999
    precision: Precision = "float32"
    compile: bool = False
    optimizer: Optimizer = "adamw"
    """What each does: :mod:`equivbench.training.optim`."""
    augmentation_fraction: float = 1.0
    """Probability with which a sample of a batch is rotated, where the recipe augments."""
    tuned_at: str | None = None
    """The budget per trial at which ``equivbench tune`` chose rate, batch size and width, e.g.
    ``"60s"``."""
    tuning_log_sha256: str | None = None
    symmetry_loss: float = 0.0
    """Weight of the penalty on what the predictions lack to be equivariant
    (:mod:`equivbench.training.symmetry_loss`): what of the objective one unit of that counts as. At
    0 there is none."""
    symmetry_loss_kind: SymmetryLossKind = "rotated-copy"
    """What is penalised. ``rotated-copy``: what the prediction and that on a rotated copy of each
    sample differ by, in the board metric. ``rotational-gradient``: the derivative of each sample's
    energy by a rotation, in eV, of arms whose forces are an energy's gradient."""


@dataclass(frozen=True)
class ArmPreset:
    """An arm at one size: the model's config and its recipe."""

    config: Mapping[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class ArmSpec:
    """A model and how it gets its symmetry.

    ``wrapper`` is None, or ``twirl-N`` (average over N rotations when evaluated), ``frames``,
    ``stochastic-frames`` or ``canonical`` (:mod:`equivbench.symmetry.wrappers`).
    """

    name: str
    model: str
    presets: Mapping[str, ArmPreset]
    wrapper: str | None = None
    widths: Mapping[str, int | str] = field(default_factory=dict)
    """The config's widths, which a size sweep multiplies, each with what it must stay a multiple
    of: a number, or the name of another config key (``{"width": "heads"}``). A width may be a
    number or a list of them."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Options of the task without which the arm is not trained
    (``{"forces": "conservative"}``)."""

    def check_options(self, chosen: Mapping[str, str]) -> None:
        """Raise ``UsageError`` unless the options of the task that are ``chosen`` are those that
        the arm needs."""
        for name, value in self.needs.items():
            if chosen.get(name) != value:
                raise UsageError(
                    f"the arm {self.name!r} is for {value} {name} alone; add --{name} {value}"
                )

    def resized(self, preset: str, factor: float) -> dict[str, Any]:
        """The entries of the config that change where all widths are multiplied by ``factor``.

        Each width is rounded to the nearest multiple that the arm declares, ties upwards, and is at
        least one such multiple. Nothing changes at factor 1. Raises ``UsageError`` for an arm that
        declares no widths and for a factor that is no positive number.
        """
        if not (math.isfinite(factor) and factor > 0):
            raise UsageError(
                f"a size factor must be a positive number, not {factor:g}; give for example 0.5"
            )
        if not self.widths:
            raise UsageError(
                f"the arm {self.name!r} declares no widths (ArmSpec.widths), so its size cannot be "
                "changed"
            )
        if factor == 1:
            return {}
        config = self.presets[preset].config
        changed: dict[str, Any] = {}
        for name, step in self.widths.items():
            multiple = int(config[step]) if isinstance(step, str) else step
            width = config[name]
            if isinstance(width, int):
                changed[name] = _nearest_multiple(factor * width, multiple)
            else:
                sizes = (_nearest_multiple(factor * each, multiple) for each in width)
                changed[name] = type(width)(sizes)
        return changed


def _nearest_multiple(width: float, multiple: int) -> int:
    return multiple * max(1, math.floor(width / multiple + 0.5))


@dataclass(frozen=True)
class MatchSpec:
    """Why the pair is fair: what the arms share, what is equalised, and what was measured where."""

    what: str
    target: str
    hardware: str | None = None
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By preset: ``"ARM parameters"``, and where step times are matched ``"ARM step_seconds"`` on
    ``hardware``."""
    of_size: bool = True
    """Whether the target depends on the arms' sizes (parameters, step time): tuning then gives both
    arms one factor on their widths, else each its own."""


@dataclass(frozen=True)
class PairPreset:
    """What both arms share at one preset."""

    dataset: str
    budget: str
    """Default budget per arm, as ``--budget`` takes it."""
    rungs: int = 5
    """Smaller budgets (a half, a quarter, ...) whose annealed result is measured on the way."""
    rotations: int = 4
    """Draws from the group per test sample in the evaluations of a run's end."""
    test_samples: int | None = None
    """Test samples evaluated there (a fixed spread over all test groups); None is all."""
    part_rotations: int = 2
    """The same of the evaluations on the way: rungs and trace."""
    part_samples: int = 64
    """Their samples, some of those that are evaluated at the end."""
    group: Group | None = None
    """The group of the equivariance error; None is the task's own."""
    evaluated_at_once: int | None = None
    """Samples in a forward pass of an evaluation; None: 16 on a CPU, 256 on a GPU."""
    baselines: Mapping[str, float] = field(default_factory=dict)
    """Board metric of the predictors that need no training on the test set that runs end with, as
    every record of this preset has it (of one made on a CPU, where ``evaluated_at_once`` is not
    given and the task draws noise); empty where the data are not the same for everybody."""
    baselines_on: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same on other data sets of the task (``--dataset``), by their names."""

    def on(self, dataset: str | None) -> PairPreset:
        """The same on another data set of the task (``--dataset``); itself for None and for its
        own."""
        if dataset is None or dataset == self.dataset:
            return self
        return replace(self, dataset=dataset, baselines=self.baselines_on.get(dataset, {}))


@dataclass(frozen=True)
class TargetLoss:
    """A loss of one arm that stays as it is, so that the time to it can fall
    (``equivbench ladder``)."""

    arm: str
    preset: str
    loss: float
    """Board metric of annealed weights, on the part of the test set that rungs are read on: the
    geometric mean over the seeds of the records that it is from."""
    budget: str
    """The budget of these records."""
    commit: str
    """Of the code that made them."""
    day: str
    """When: ``2026-11-29``."""


@dataclass(frozen=True)
class PairSpec:
    """Two arms (or more) of one task under one statement of what is matched."""

    name: str
    task: str
    summary: str
    arms: tuple[ArmSpec, ...]
    """The first two are the contestants, trained by default; further ones are trained when asked
    for by name."""
    matching: MatchSpec
    presets: Mapping[str, PairPreset]
    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By preset, what work on one arm takes on two cores of a CPU, for estimates before anything
    was run: ``step`` (budget seconds of a training step), ``off_budget`` (wall seconds of a run
    beyond its budget: evaluations, timing, checkpoints), and an analysis of a run by the name of
    its command (``gradients``). What is left out is not estimated."""
    targets: tuple[TargetLoss, ...] = ()
    """At most one for each arm and preset; none where there are no records yet to take it from."""

    @property
    def key(self) -> str:
        """The name under which the pair is registered and asked for: ``task/pair``."""
        return f"{self.task}/{self.name}"

    @property
    def contestants(self) -> tuple[ArmSpec, ...]:
        """The two arms that the pair compares; further arms (frames, ...) are there to be asked for
        by name."""
        return self.arms[:2]

    def arm(self, name: str) -> ArmSpec:
        """The arm called ``name``; raises ``UsageError`` with the close matches."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise unknown_name(f"arm of {self.key}", name, [arm.name for arm in self.arms])

    def target(self, arm: str, preset: str) -> TargetLoss | None:
        """The target loss of ``arm`` at ``preset``; None where it has none."""
        found = (each for each in self.targets if (each.arm, each.preset) == (arm, preset))
        return next(found, None)

    def with_model(
        self,
        model: str,
        *,
        name: str,
        arm: str = "augmented",
        config: Mapping[str, Any] | None = None,
    ) -> PairSpec:
        """The same contest of the two contestants with another model in one arm.

        Recipe, data, budget and presets stay. What was matched was matched for the other model, so
        nothing is said to be.

        Parameters
        ----------
        model, config
            The registered model that takes part instead, and its config.
        name
            Of the new pair, without its task.
        arm
            The arm whose model is replaced; raises ``UsageError`` if there is none.
        """
        replaced = self.arm(arm)
        presets = {
            size: replace(preset, config=dict(config or {}))
            for size, preset in replaced.presets.items()
        }
        mine = ArmSpec(replaced.name, model, presets, replaced.wrapper, needs=replaced.needs)
        statement = MatchSpec(
            f"The {arm} arm of {self.key} with another model, {model}.", "nothing", of_size=False
        )
        arms = tuple(mine if each is replaced else each for each in self.contestants)
        summary = f"{model} in {self.name}"
        return replace(
            self, name=name, summary=summary, arms=arms, matching=statement, seconds={}, targets=()
        )


def simple_pair(
    name: str,
    *,
    dataset: str,
    equivariant: str,
    augmented: str,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    budget: str = "60s",
) -> PairSpec:
    """A pair of two registered models with one recipe for both, as presets ``dev`` and ``small``.

    This is a start: before its gap means anything, tune both arms with `equivbench tune` and state
    what is matched.

    Parameters
    ----------
    name
        ``task/pair``.
    dataset
        The registered data set that both arms are trained on.
    equivariant, augmented
        The registered models of the two arms; the second is trained on rotated samples.
    learning_rate, batch_size
        Of both arms, until they are tuned.
    budget
        Default budget of each arm at ``small``; at ``dev`` it is 200 steps.

    Returns
    -------
    PairSpec
        For :func:`equivbench.register_pair`.
    """

    def arm(label: str, model: str, augmentation: Augmentation) -> ArmSpec:
        preset = ArmPreset({}, Recipe(learning_rate, batch_size, augmentation))
        return ArmSpec(label, model, {"dev": preset, "small": preset})

    task, _, short = name.partition("/")
    return PairSpec(
        name=short,
        task=task,
        summary=f"{equivariant} against {augmented}",
        arms=(arm("equivariant", equivariant, "none"), arm("augmented", augmented, "haar")),
        matching=MatchSpec("Nothing is matched yet.", "nothing", of_size=False),
        presets={
            "dev": PairPreset(dataset, "200steps", rungs=2),
            "small": PairPreset(dataset, budget),
        },
    )
