"""What a run record must say because it is declared: its model, recipe, matching, data and test set
follow from its pair, its preset and what a sweep changed. What a plug-in declares is never loaded
to find out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec

from equivbench.axes import AXES
from equivbench.environment import computed_in, is_key_of
from equivbench.errors import UsageError, unknown_name
from equivbench.records.evaluations import FINALS, evaluations, of_test_set
from equivbench.records.reasons import without_places_in
from equivbench.records.schema import RunRecord, Test
from equivbench.registry import DATASETS, MODELS, PAIRS, TASKS
from equivbench.request import DEFAULT_KERNELS
from equivbench.specs import (
    PRECISIONS,
    ArmSpec,
    DatasetSpec,
    ModelSpec,
    PairPreset,
    PairSpec,
    Recipe,
    TaskSpec,
)

SWEEP = ("sweep", "value")
"""The labels of a point of a sweep in a record's ``variant``."""
PRECISION = "precision"
"""The label of a run whose precision is another than its preset's (``--precision``)."""
LABELS = (*SWEEP, PRECISION)
"""What a run has in its ``variant`` where it is not of the pair as that is declared."""
TUNED = ("learning_rate", "batch_size", "tuned_at", "tuning_log_sha256")
"""Fields of a recipe that another tuning than the declared one may have chosen otherwise."""
SAME_BASELINE = 1e-4
"""Relative: the same predictor on the same test set, by float32 passes on another machine, was
equal to seven digits; a preset's other test set is off by more than a per cent."""
_CUBE = 24


@dataclass(frozen=True)
class Declaration:
    """What is declared of the run that a record is of, a sweep's change made."""

    pair: PairSpec
    arm: ArmSpec
    preset: PairPreset
    model: ModelSpec
    task: TaskSpec | None
    dataset: DatasetSpec | None
    """None where only a plug-in may know it, or the content is not the same for everybody."""
    config: Mapping[str, Any]
    recipe: Recipe
    fraction: float
    resized: bool
    """Whether the config is another than the pair's."""
    tuned_here: bool
    """Whether the record names the tuning that the pair declares."""

    @property
    def place(self) -> str:
        """How sentences name what declares it."""
        return f"{self.pair.key} {self.arm.name}"


def declaration_of(record: RunRecord) -> Declaration | None:
    """What is declared of ``record``'s run; None where its pair is not equivbench's own, nor
    registered by this process.

    Raises ``UsageError`` where the pair has no such arm, preset or point of a sweep.
    """
    pair = PAIRS.known(f"{record.task}/{record.pair}")
    if pair is None:
        return None
    arm = pair.arm(record.arm)
    presets = pair.presets.keys() & arm.presets.keys()
    if record.preset not in presets:
        raise unknown_name(f"preset of {pair.key}", record.preset, presets)
    preset, sized = pair.presets[record.preset], arm.presets[record.preset]
    chosen = DATASETS.known(record.dataset.name)
    if chosen is None or chosen.task == pair.task:
        # One that a plug-in brings is not known here, which is remarked. Whether it was asked for
        # is for the rules of the command to say.
        preset = preset.on(record.dataset.name)
    model = MODELS.known(arm.model)
    if model is None:
        return None
    changes = relabelled(record, arm)
    kernels = record.model.kernels
    on_kernels = {"kernels": kernels} if model.kernels and kernels != DEFAULT_KERNELS else {}
    recipe = replace(sized.recipe, **changes.get("recipe", {}))
    dataset = DATASETS.known(preset.dataset)
    return Declaration(
        pair=pair,
        arm=arm,
        preset=preset,
        model=model,
        task=TASKS.known(pair.task),
        dataset=dataset if dataset and record.dataset.version in dataset.checksums else None,
        config=_plain({**sized.config, **changes.get("config", {}), **on_kernels}),
        recipe=recipe,
        fraction=changes.get("fraction", 1.0),
        resized=bool(changes.get("config")),
        tuned_here=record.recipe.tuning_log_sha256 == recipe.tuning_log_sha256,
    )


def departures(record: RunRecord) -> Iterator[str]:
    """The record says of its run what is declared of it."""
    try:
        declared = declaration_of(record)
    except UsageError as error:
        yield f"nothing that is declared is this run: {error}"
        return
    if declared is not None:
        for rule in _RULES:
            yield from rule(record, declared)


def effective_variant(record: RunRecord) -> dict[str, str]:
    """The ``variant`` of ``record`` as far as it changed what was computed, by which runs are told
    apart: without a ``precision`` that the device makes of the preset's in any case, as float32 is
    on a CPU where the preset says TF32.

    What a plug-in declares is not loaded to find out: such a label stays.
    """
    if PRECISION not in record.variant:
        return record.variant
    pair = PAIRS.known(f"{record.task}/{record.pair}")
    arms = () if pair is None else pair.arms
    own = (arm.presets.get(record.preset) for arm in arms if arm.name == record.arm)
    sized = next(own, None)
    if sized is None:
        return record.variant
    usual = computed_in(sized.recipe.precision, record.environment.device)
    return without_usual(record.variant, record.recipe.precision, usual)


def without_usual(variant: dict[str, str], computed: str, usual: str) -> dict[str, str]:
    """``variant`` without its ``precision`` where the run ``computed`` in the one that is
    ``usual``, which the device makes of the preset's in any case."""
    if computed != usual:
        return variant
    return {name: value for name, value in variant.items() if name != PRECISION}


def as_declared(variant: Mapping[str, str]) -> bool:
    """Whether runs with this :func:`effective_variant` are of the pair as it is declared: no point
    of a sweep, in the preset's precision."""
    return variant.keys().isdisjoint(LABELS)


def unchecked(record: RunRecord) -> Iterator[str]:
    """Everything that could be looked up was looked up."""
    try:
        declared = declaration_of(record)
    except UsageError:
        return
    if declared is None:
        yield (
            f"not checked: the pair {record.task}/{record.pair} is not installed with equivbench "
            "itself, and the code of plug-ins is not run to check a record"
        )
        return
    own = declared.pair.presets[record.preset].dataset
    if record.dataset.name != own:
        yield f"tuned and matched on {own}, trained on {record.dataset.name}"
    if PRECISION in effective_variant(record):
        yield f"tuned in the preset's precision, trained in {record.variant[PRECISION]}"
    if not declared.tuned_here:
        yield (
            "not checked: the recipe names another tuning than the one that "
            f"{declared.place} declares"
        )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` as a record on disk has it: a tuple is a list there, a path has its last part."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(without_places_in(config)))
    return plain


def relabelled(record: RunRecord, arm: ArmSpec) -> dict[str, Any]:
    """The fields of a job that the labels of ``record`` change: those of its point of a sweep, and
    the precision of its recipe.

    Raises ``UsageError`` where there is no such point or precision.
    """
    changes, precision = swept(record, arm), record.variant.get(PRECISION)
    if precision is None:
        return changes
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    return {**changes, "recipe": {**changes.get("recipe", {}), "precision": precision}}


def swept(record: RunRecord, arm: ArmSpec) -> dict[str, Any]:
    """The fields of a job that the point of a sweep changes; empty for a record of none.

    Raises ``UsageError`` where there is no such point.
    """
    over, value = (record.variant.get(name) for name in SWEEP)
    if over is None and value is None:
        return {}
    if over is None or over not in AXES:
        raise unknown_name("axis of a sweep", str(over), AXES)
    axis = AXES[over]
    if value is None or axis.read(value) != value:
        raise UsageError(f"{value!r} is no value of the axis {over}")
    return axis.change(value, arm, record.preset)


def _differing(
    where: str, found: Mapping[str, Any], declared: Mapping[str, Any], who: str
) -> Iterator[str]:
    """A sentence for each entry that ``found`` and ``declared`` do not share."""
    for name in {**declared, **found}:
        if name not in found:
            yield f"{where}.{name} is missing, {who} has {declared[name]!r}"
        elif name not in declared:
            yield f"{where}.{name} is {found[name]!r}, which {who} does not have"
        elif found[name] != declared[name]:
            yield f"{where}.{name} is {found[name]!r}, {who} has {declared[name]!r}"


def _model(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """The network is the arm's, in the size of its preset."""
    model, arm, spec = record.model, declared.arm, declared.model
    names = ("name", "symmetry", "wrapper")
    yield from _differing(
        "model",
        {name: getattr(model, name) for name in names},
        {"name": spec.name, "symmetry": spec.symmetry, "wrapper": arm.wrapper},
        declared.place,
    )
    if not spec.kernels and model.kernels != DEFAULT_KERNELS:
        yield f"model.kernels is {model.kernels!r}, but {spec.name} takes no kernel backend"
    config, its = _plain(model.config), dict(declared.config)
    same_config = config == its
    if not declared.tuned_here:
        for name in arm.widths:
            config.pop(name, None)
            its.pop(name, None)
    yield from _differing("model.config", config, its, f"{declared.place} at {record.preset}")
    options = declared.task.options if declared.task else {}
    chosen = {name: record.variant.get(name) for name in options}
    usual = chosen == {name: values[0] for name, values in options.items()}
    parameters = record.matching.measured.get(f"{arm.name} parameters")
    same_size = same_config and model.kernels == DEFAULT_KERNELS and usual
    built = model.parameters is not None
    if parameters is not None and built and same_size and model.parameters != parameters:
        yield f"model.parameters is {model.parameters}, matching.measured says {parameters:.0f}"


def _matching(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """The statement of what is matched is the pair's."""
    statement = declared.pair.matching
    stated = {"what": statement.what, "target": statement.target, "hardware": statement.hardware}
    for name, its in stated.items():
        if getattr(record.matching, name) != its:
            yield f"matching.{name} is not the statement of {declared.pair.key}"
    if declared.tuned_here:
        measured = {} if declared.resized else statement.measured.get(record.preset, {})
        yield from _differing(
            "matching.measured", record.matching.measured, measured, declared.pair.key
        )


def _recipe(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """The recipe is the arm's, with the precision that the device has."""
    left_out = {"compile", "precision", *(() if declared.tuned_here else TUNED)}
    names = [each.name for each in fields(Recipe) if each.name not in left_out]
    yield from _differing(
        "recipe",
        {name: getattr(record.recipe, name) for name in names},
        {name: getattr(declared.recipe, name) for name in names},
        f"{declared.place} at {record.preset}",
    )
    precision = computed_in(declared.recipe.precision, record.environment.device)
    if record.recipe.precision != precision:
        yield f"recipe.precision is {record.recipe.precision!r}, not {precision!r}"
    if record.recipe.compile is not None and not declared.recipe.compile:
        yield f"recipe.compile is {record.recipe.compile!r}, but {declared.place} trains eagerly"


def _machine(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """The key of the machine is made of its processor, threads and GPU; the packages are named
    without which nothing runs."""
    where = record.environment
    many = record.devices_per_arm
    if not is_key_of(where.machine_key, where.cpu, where.threads, where.device, many):
        of_an_arm = f", {many} an arm" if many > 1 else ""
        yield (
            f"environment.machine_key {where.machine_key!r} is not that of {where.cpu!r} with "
            f"{where.threads} threads and device {where.device!r}{of_an_arm}"
        )
    for name in ("equivbench", "torch", "numpy"):
        if name not in where.packages:
            yield f"environment.packages has no version of {name}"


def _variant(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """The variant names the options of the task, as the arm needs them, another precision than the
    arm's, and the point of a sweep, and nothing else."""
    options = declared.task.options if declared.task and declared.task.fields else None
    if options is None:
        return
    for name, values in options.items():
        if record.variant.get(name) not in values:
            yield f"variant.{name} is {record.variant.get(name)!r}, not one of {values}"
    for name in record.variant.keys() - options.keys() - set(LABELS):
        yield f"variant.{name} is no option of {record.task}"
    usual = declared.arm.presets[record.preset].recipe.precision
    if record.variant.get(PRECISION) == usual:
        yield f"variant.precision is {usual!r}, which {declared.place} has in any case"
    for name, value in declared.arm.needs.items():
        if record.variant.get(name) != value:
            yield (
                f"variant.{name} is {record.variant.get(name)!r}, but {declared.place} is trained "
                f"on {value} {name} alone"
            )


def _data(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """The data are the preset's, in the sizes of their card."""
    found, spec = record.dataset, declared.dataset
    if found.name != declared.preset.dataset:
        yield (
            f"dataset.name is {found.name!r}, {declared.pair.key} at {record.preset} has "
            f"{declared.preset.dataset!r}"
        )
        return
    known = DATASETS.known(found.name)
    if known is not None and known.only_tests:
        yield f"the data set {found.name} has no samples to train on"
    if spec is None or not spec.sizes:
        return
    sizes = dict(spec.sizes)
    if declared.fraction != 1:
        sizes["fraction"] = round(1000 * declared.fraction)
        if 0 < found.sizes.get("train", 0) <= sizes["train"]:
            sizes["train"] = found.sizes["train"]
    yield from _differing("dataset.sizes", found.sizes, sizes, f"the card of {found.name}")


def _test_set(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """Evaluations are of the samples, rotations and group that the preset says."""
    preset, size = declared.preset, record.dataset.sizes.get("test")
    group = preset.group or (declared.task.group if declared.task else None)
    reported = declared.task.reported if declared.task and declared.task.fields else None
    for where, test in evaluations(record):
        if group is not None and test.group != group:
            yield f"{where}: group is {test.group!r}, {declared.pair.key} is judged under {group!r}"
        for name in test.errors:
            if reported is not None and name not in reported:
                yield f"{where}: errors.{name} is no output that {record.task} reports"
        if test.floor is not None and where != "final":
            yield f"{where}: a floor is given, which is measured at the end alone"
    if size is None:
        return
    whole = min(preset.test_samples or size, size)
    part = min(preset.part_samples, preset.test_samples or size, size)
    for where, test in of_test_set(record):
        at_end = where in FINALS and where != "final_on_part"
        yield from _judged(
            where,
            test,
            whole if at_end else part,
            preset.rotations if at_end else preset.part_rotations,
        )


def _judged(where: str, test: Test, samples: int, rotations: int) -> Iterator[str]:
    turns = min(rotations, _CUBE) if test.group == "octahedral" else rotations
    if (test.samples, test.rotations) != (samples, turns):
        yield (
            f"{where}: {test.samples} samples under {test.rotations} rotations, "
            f"the preset has {samples} under {turns}"
        )


def _further(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """A completed run ends on the further test sets of its data."""
    spec, preset = declared.dataset, declared.preset
    if spec is None or not spec.sizes or record.dataset.name != spec.name:
        return
    expected = spec.further if record.status == "completed" else {}
    if set(record.out_of_distribution) != set(expected):
        yield (
            f"out_of_distribution holds {sorted(record.out_of_distribution) or 'nothing'}, "
            f"a {record.status} run on {spec.name} has {sorted(expected) or 'nothing'}"
        )
        return
    for name, test in record.out_of_distribution.items():
        size = expected[name]
        samples = min(preset.test_samples or size, size)
        yield from _judged(f"out_of_distribution.{name}", test, samples, preset.part_rotations)


def _baselines(record: RunRecord, declared: Declaration) -> Iterator[str]:
    """Predictors without training do on the test set what they always do."""
    spec, preset, known = declared.dataset, declared.preset, declared.preset.baselines
    if record.status != "completed" or spec is None or not known:
        return
    # Noise of the test set is drawn for as many samples as are evaluated at once, which differ on
    # a GPU where the preset does not say.
    same_noise = preset.evaluated_at_once is not None or record.environment.device == "cpu"
    if set(record.baselines) != set(known):
        yield f"baselines are {sorted(record.baselines)}, {declared.pair.key} has {sorted(known)}"
        return
    for name, value in known.items():
        # Others than zero are fitted on the training split, of which a sweep may take a part.
        same = name == "zero" or (same_noise and declared.fraction == 1)
        if same and not math.isclose(record.baselines[name], value, rel_tol=SAME_BASELINE):
            yield (
                f"baselines.{name} is {record.baselines[name]:.9g}, on the test set of "
                f"{declared.pair.key} at {record.preset} it is {value:.9g}"
            )


_RULES: tuple[Callable[[RunRecord, Declaration], Iterator[str]], ...] = (
    _model,
    _matching,
    _recipe,
    _machine,
    _variant,
    _data,
    _test_set,
    _further,
    _baselines,
)
