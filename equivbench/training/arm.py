"""An arm: what a job's names stand for (:class:`ResolvedArm`), and the live thing that is trained
(:class:`Arm`), made of its model, its data and its test set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from equivbench.environment import computed_in
from equivbench.errors import EquivbenchError, ModelError, UsageError, unknown_name
from equivbench.kernels import build_time
from equivbench.kernels.backend import OnBackend, UnsupportedError, built_for
from equivbench.kernels.first_use import check_kernels
from equivbench.kernels.process_settings import settings_kept
from equivbench.measure.calls import call, checked, without_gradients
from equivbench.measure.checks import check_weights
from equivbench.measure.evaluator import Evaluator
from equivbench.measure.measurement import Measurement
from equivbench.ranks import Ranks
from equivbench.registry import DATASETS, MODELS, PAIRS, TASKS, resolve
from equivbench.specs import ArmSpec, ModelSpec, PairPreset, PairSpec, Precision, Recipe
from equivbench.symmetry.wrappers import wrap
from equivbench.tasks.base import Batch, Card, DatasetSource, Split, Task, TaskData
from equivbench.training.acts import Judge
from equivbench.training.checkpoint import read_checkpoint
from equivbench.training.clock import Clock
from equivbench.training.data import seed_global
from equivbench.training.job import Job, read_job


@dataclass(frozen=True)
class ResolvedArm:
    """The declarations that a job names, and what follows from them and from its overrides."""

    pair: PairSpec
    pair_preset: PairPreset
    arm: ArmSpec
    spec: ModelSpec
    config: Mapping[str, Any]
    recipe: Recipe
    variant: Mapping[str, str]
    """Every option of the task with its value, the default where none was chosen."""
    task: Task

    def dataset(self) -> DatasetSource:
        """The data set that the pair trains on at this preset."""
        source: DatasetSource = resolve(DATASETS.get(self.pair_preset.dataset).factory)()
        return source

    def build_model(self, seed: int) -> nn.Module:
        """The model without its wrapper, its initial weights a function of ``seed`` alone."""
        seed_global(seed, "init")
        # A foreign network may set the default dtype, or the number of threads, for everybody.
        with settings_kept():
            model = resolve(self.spec.build)(self.config)
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"model {self.spec.name!r}: its build function returned {type(model).__name__}, "
                "not a torch.nn.Module"
            )
        adapted: nn.Module = self.task.adapt(model, self.variant)
        return adapted

    def wrapped(self, model: nn.Module) -> nn.Module:
        """``model`` in the arm's symmetrising wrapper, or itself where the arm has none."""
        if self.arm.wrapper is None:
            return model
        return wrap(self.arm.wrapper, model, self.task.fields, self.task.index_field)

    def requires(self, model: nn.Module) -> Mapping[str, float]:
        """The derived inputs that ``model`` needs: its own ``requires`` where it has one, else its
        declaration's."""
        return cast(Mapping[str, float], getattr(model, "requires", self.spec.requires))


def resolve_arm(job: Job) -> ResolvedArm:
    """Look up what ``job`` names.

    Raises ``UsageError`` for a name, an option of the task, an entry of the config or a field of
    the recipe that does not exist, with the close matches, and where the arm needs another option.
    """
    pair = PAIRS.get(job.pair)
    arm = pair.arm(job.arm)
    size = job.request.preset
    if size not in pair.presets or size not in arm.presets:
        presets = pair.presets.keys() & arm.presets.keys()
        raise unknown_name(f"preset of {job.pair}", size, presets)
    preset = arm.presets[size]
    task = cast(Task, resolve(TASKS.get(pair.task).factory)())
    spec = MODELS.get(arm.model)
    if job.kernels is not None and not spec.kernels:
        raise UsageError(
            f"model {spec.name!r} takes no kernel backend; leave out kernels={job.kernels!r}"
        )
    _check_names("entry of the model's config", job.config, preset.config)
    _check_names("recipe field", job.recipe, [field.name for field in fields(Recipe)])
    _check_names(f"option of {task.name}", job.variant, task.options)
    for name, value in job.variant.items():
        _check_names(f"value of {name}", [value], task.options[name])
    arm.check_options(job.variant)
    kernels = {} if job.kernels is None else {"kernels": job.kernels}
    return ResolvedArm(
        pair=pair,
        pair_preset=pair.presets[size].on(job.request.dataset),
        arm=arm,
        spec=spec,
        config={**preset.config, **job.config, **kernels},
        recipe=replace(preset.recipe, **job.recipe),
        variant={name: job.variant.get(name, values[0]) for name, values in task.options.items()},
        task=task,
    )


def _check_names(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)


@runtime_checkable
class ArmEvaluator(Protocol):
    """What the trainer asks of :class:`equivbench.measure.evaluator.Evaluator`."""

    def evaluate(self, model: nn.Module, floor: bool) -> Measurement:
        """Measure ``model`` on the fixed, rotated test set; ``floor``: with the floor of the
        share."""
        ...

    def check(self, model: nn.Module) -> None:
        """Raises ``ModelError`` where the predictions of ``model`` are not of single samples."""
        ...

    def baselines(self) -> dict[str, float]:
        """Board metric of the predictors that need no training, by name."""
        ...


class SharedEvaluator:
    """An evaluator of the test set called ``name`` that all ``ranks`` of an arm judge together."""

    def __init__(self, evaluator: Evaluator, name: str, ranks: Ranks) -> None:
        self.name = name
        self._evaluator, self._ranks = evaluator, ranks

    def evaluate(self, model: nn.Module, floor: bool) -> Measurement:
        """Measure ``model``, on the first rank: the others hand in their parts."""
        self._ranks.tell(Judge(self.name))
        return self._evaluator.evaluate(model, floor, self._ranks)

    def hand_in_part(self, model: nn.Module) -> None:
        """Judge ``model`` on this rank's part of the test set, for the first rank."""
        self._evaluator.hand_in_part(model, self._ranks)

    def check(self, model: nn.Module) -> None:
        """As :meth:`equivbench.measure.evaluator.Evaluator.check`, on this rank alone."""
        self._evaluator.check(model)

    def baselines(self) -> dict[str, float]:
        """As :meth:`equivbench.measure.evaluator.Evaluator.baselines`, on this rank alone."""
        return self._evaluator.baselines()


@dataclass(frozen=True)
class Arm:
    """One arm, ready to be trained on ``device``."""

    declared: ResolvedArm
    card: Card
    """What its data is."""
    split: Split
    """The training split."""
    model: nn.Module
    """Owns the weights; compiled in place where the recipe says so."""
    module: nn.Module
    """What is called: the model in its symmetrising wrapper, or the model itself."""
    recipe: Recipe
    """The declared recipe, with the precision that the device has."""
    evaluator: ArmEvaluator
    """Of the whole test set."""
    part_evaluator: ArmEvaluator
    """Of the part of it that is read on the way."""
    further_evaluators: Callable[[], Mapping[str, ArmEvaluator]]
    """Makes those of the test sets that differ from the training data, by name."""
    device: torch.device
    evaluated_at_once: int
    """Samples in a forward pass without gradients: the evaluation graph is traced at this size."""

    @property
    def task(self) -> Task:
        """The task that is learned."""
        return self.declared.task

    @property
    def requires(self) -> Mapping[str, float]:
        """The derived inputs that the model needs."""
        return self.declared.requires(self.model)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of a forward pass: bfloat16 autocast where the recipe says so, or nothing."""
        if self.recipe.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def outputs(self, inputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Batch:
        """The module's outputs; raises ``ModelError`` where they are not like the ``targets`` of
        their names, and where it changed its inputs or its process."""
        return checked(self.task, call(self.module, inputs), targets)

    def without_gradients(self) -> contextlib.AbstractContextManager[None]:
        """No gradients reach the weights inside the block; the model may use autograd itself."""
        return without_gradients(self._parameters)

    @cached_property
    def _parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    def with_feedback(
        self, inputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """``inputs`` with the task's feedback from a pass without gradients of the weights."""
        feedback = self.task.feedback
        assert feedback is not None
        with self.without_gradients():
            first = self.outputs(inputs, targets)[feedback.output].detach()
        return {**inputs, feedback.input: first}


def use_precision(precision: Precision) -> None:
    """Set this process's matrix products to TF32 or to full float32 (convolutions included)."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def build_arm(
    declared: ResolvedArm,
    job: Job,
    data: TaskData,
    clock: Clock,
    alive: Callable[[], None] = lambda: None,
    ranks: Ranks | None = None,
) -> Arm:
    """The arm on the job's device, its test set made in clock part ``evaluate``; evaluations call
    ``alive`` as they go on. Several ``ranks`` judge test sets together."""
    device = torch.device(job.device)
    preset, task = declared.pair_preset, declared.task
    # Libraries and our own kernels compile while a network is built.
    with clock.part("compile"):
        with _asked_kernels(job), built_for(device):
            model = declared.build_model(job.seed).to(device)
        check_kernels(model)
        check_weights(model)
    # Verification runs a copy in float64. What is compiled for it is a cost of checking, as the
    # check of compiled gradients is, and neither training's nor the evaluation's.
    with clock.part("other"), build_time.uncharged():
        for module in model.modules():
            if isinstance(module, OnBackend) and module.compiles:
                # Verification says why a model does not run in float64.
                with contextlib.suppress(EquivbenchError):
                    module.prepare(torch.float64)
    precision = computed_in(declared.recipe.precision, device.type)
    # Few on a CPU, whose caches they then fit (PaiNN, two cores: 16 at once take 0.43 s for the
    # test set where 64 take 0.59 s).
    at_once = preset.evaluated_at_once or (16 if device.type == "cpu" else 256)
    requires = declared.requires(model)
    untrained = cache(lambda: task.untrained(data))

    def evaluator(
        name: str, split: Split, rotations: int, samples: int | None
    ) -> Evaluator | SharedEvaluator:
        own = Evaluator(
            task,
            split,
            requires=requires,
            rotations=rotations,
            group=preset.group or task.group,
            seed=0,
            device=device,
            samples=samples,
            batch_size=at_once,
            precision=precision,
            symmetry=declared.spec.symmetry,
            untrained=untrained,
            alive=alive,
        )
        return own if ranks is None else SharedEvaluator(own, name, ranks)

    with clock.part("evaluate"):
        judged = data.split(job.split)
        whole = evaluator("whole", judged, preset.rotations, preset.test_samples)
        most = preset.test_samples or preset.part_samples
        part = evaluator("part", judged, preset.part_rotations, min(preset.part_samples, most))
    return Arm(
        declared=declared,
        card=data.card,
        split=data.train,
        model=model,
        module=declared.wrapped(model),
        recipe=replace(declared.recipe, precision=precision),
        evaluator=whole,
        part_evaluator=part,
        further_evaluators=lambda: {
            name: evaluator(f"further {name}", split, preset.part_rotations, preset.test_samples)
            for name, split in data.out_of_distribution.items()
        },
        device=device,
        evaluated_at_once=at_once,
    )


@contextlib.contextmanager
def _asked_kernels(job: Job) -> Iterator[None]:
    """Where the kernel backend that ``job`` asks for does not do what its network needs, the
    sentence names the option."""
    try:
        yield
    except UnsupportedError as error:
        if job.kernels is None:
            raise
        raise UsageError(f"--kernels {job.kernels}: {error}") from error


def load_model(path: Path, weights: str = "model") -> tuple[nn.Module, Task, Job]:
    """(the model of a run's checkpoint, in its wrapper, in evaluation mode; its task; its job).

    ``weights``: ``model`` (annealed, where the run is finished) or ``ema`` (averaged). Raises
    ``FailedError`` where the file is not
    a checkpoint.
    """
    checkpoint = read_checkpoint(path)
    job = read_job(checkpoint.facts.job)
    declared = resolve_arm(job)
    model = declared.build_model(job.seed)
    model.load_state_dict(checkpoint.weights(weights), strict=False)
    return declared.wrapped(model).eval(), declared.task, job
