"""The record of a run whose worker died before its arm was built: what is declared of the arm, or
known from another seed of it, and why there is nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from equivbench.budget import Budget
from equivbench.environment import computed_in, environment, git_state
from equivbench.execution.chosen_data import dataset_of
from equivbench.records.declared import LABELS
from equivbench.records.evaluations import FINALS
from equivbench.records.reasons import plain_reason, without_places_in
from equivbench.records.schema import (
    RULES_VERSION,
    SCHEMA_VERSION,
    BudgetRecord,
    ClockRecord,
    DatasetRecord,
    Inference,
    Matching,
    Memory,
    ModelRecord,
    RecipeRecord,
    RunRecord,
    Throughput,
)
from equivbench.registry import DATASETS, MODELS, PAIRS, TASKS, resolve
from equivbench.request import DEFAULT_KERNELS
from equivbench.tasks.archives import ArchiveSource, read_card
from equivbench.training.job import Job

_NOTHING = "the run ended before its arm was built"
_UNMEASURED = (
    *FINALS,
    *("throughput.samples_per_second", "inference.samples_per_second"),
    *("memory.peak_bytes", "flops_per_sample", "energy_joules", "machine_share"),
    "model.symmetry_verified",
)


@dataclass(frozen=True)
class _Built:
    """What a record says of its arm and data, whatever the run came to."""

    dataset: DatasetRecord
    matching: Matching
    model: ModelRecord
    recipe: RecipeRecord
    variant: dict[str, str]
    reasons: dict[str, str] = field(default_factory=dict)


def unbuilt_record(job: Job, why: str, known: Sequence[RunRecord]) -> RunRecord | None:
    """The failed record of ``job``, of which no step was made because of ``why``.

    It says of its arm what that one of the ``known`` records does which is of the same arm, so that
    it stands in one row with it; else what is declared, on the data of another arm. None where
    nobody can say which data it would have had.
    """
    same_size = [each for each in known if _has_data_of(each, job)]
    twin = next((each for each in same_size if _is_of_same_arm(each, job)), None)
    if twin is not None:
        built = _like(twin)
    else:
        dataset = same_size[0].dataset if same_size else _dataset(job)
        if dataset is None:
            return None
        built = _declared(job, dataset)
    budget = Budget.parse(job.budget)
    parts = dict.fromkeys(ClockRecord.__struct_fields__, 0.0)
    devices = len(job.replicas) + 1
    where = environment(job.device, job.threads, devices)
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        rules_version=RULES_VERSION,
        run_id=job.run_id,
        created=job.created,
        status="failed",
        reason=plain_reason(why),
        preset=job.request.preset,
        command=job.command,
        task=job.pair.partition("/")[0],
        dataset=built.dataset,
        pair=job.pair.partition("/")[2],
        arm=job.arm,
        matching=built.matching,
        model=built.model,
        recipe=built.recipe,
        variant=built.variant,
        seed=job.seed,
        budget=BudgetRecord(
            kind=budget.kind,
            limit=budget.limit,
            spent=0.0,
            overshoot=0.0,
            extends=None if job.extends is None else Budget.parse(job.extends).limit,
        ),
        clock=ClockRecord(**parts),
        restarts=0,
        lost_seconds=0.0,
        steps=0,
        samples=0,
        epochs=0.0,
        throughput=Throughput(samples_per_second=None, step_seconds=None),
        inference=Inference(samples_per_second=None),
        memory=Memory(peak_bytes=None),
        flops_per_sample=None,
        energy_joules=None,
        rungs=[],
        trace=[],
        final=None,
        final_on_part=None,
        final_raw=None,
        final_ema=None,
        out_of_distribution={},
        # Of now, whenever what is known of the arm was measured.
        environment=where,
        git=git_state(),
        reasons={**built.reasons, **dict.fromkeys(_UNMEASURED, _NOTHING)},
        contest=job.contest or None,
        machine_share=None,
        devices_per_arm=devices,
        **job.attested(where.machine_key, "failed"),
    )


def _has_data_of(record: RunRecord, job: Job) -> bool:
    found = (f"{record.task}/{record.pair}", record.preset)
    point = {name: value for name, value in record.variant.items() if name in LABELS}
    return found == (job.pair, job.request.preset) and point == job.labels


def _is_of_same_arm(record: RunRecord, job: Job) -> bool:
    found = (record.arm, record.model.kernels)
    same = found == (job.arm, job.kernels or DEFAULT_KERNELS)
    return same and job.variant.items() <= record.variant.items()


def _like(twin: RunRecord) -> _Built:
    of_arm = {
        path: reason
        for path, reason in twin.reasons.items()
        if path.partition(".")[0] in ("recipe", "matching") or path == "model.parameters"
    }
    return _Built(
        dataset=twin.dataset,
        matching=twin.matching,
        model=msgspec.structs.replace(twin.model, symmetry_verified=None, symmetry_reason=None),
        recipe=twin.recipe,
        variant=twin.variant,
        reasons=of_arm,
    )


def _declared(job: Job, dataset: DatasetRecord) -> _Built:
    pair = PAIRS.get(job.pair)
    arm = pair.arm(job.arm)
    sized, spec, task = arm.presets[job.request.preset], MODELS.get(arm.model), TASKS.get(pair.task)
    measured = {} if job.config else dict(pair.matching.measured.get(job.request.preset, {}))
    as_matched = not (job.config or job.kernels or job.variant)
    parameters = measured.get(f"{arm.name} parameters") if as_matched else None
    recipe = replace(sized.recipe, **job.recipe)
    recipe = replace(recipe, precision=computed_in(recipe.precision, job.device))
    told = {name: getattr(recipe, name) for name in RecipeRecord.__struct_fields__}
    return _Built(
        dataset=dataset,
        matching=Matching(
            what=pair.matching.what,
            hardware=pair.matching.hardware,
            target=pair.matching.target,
            measured=measured,
        ),
        model=ModelRecord(
            name=spec.name,
            symmetry=spec.symmetry,
            symmetry_verified=None,
            parameters=None if parameters is None else int(parameters),
            kernels=job.kernels or DEFAULT_KERNELS,
            config=without_places_in(
                {
                    **sized.config,
                    **job.config,
                    **({} if job.kernels is None else {"kernels": job.kernels}),
                }
            ),
            wrapper=arm.wrapper,
        ),
        recipe=RecipeRecord(**{**told, "compile": None}),
        variant={
            **{name: job.variant.get(name, values[0]) for name, values in task.options.items()},
            **job.labels,
        },
        reasons={"model.parameters": _NOTHING} if parameters is None else {},
    )


def _dataset(job: Job) -> DatasetRecord | None:
    """What is declared of the job's data set, or what its card says; None where neither is
    there."""
    spec = DATASETS.get(dataset_of(job))
    if spec.checksums:
        version, digest = list(spec.checksums.items())[-1]
        sizes = dict(spec.sizes)
        if job.fraction != 1:
            sizes["fraction"] = round(1000 * job.fraction)
        return DatasetRecord(name=spec.name, version=version, sha256=digest, sizes=sizes)
    # What is missing or broken here may be what the worker died of.
    with contextlib.suppress(Exception):
        source = resolve(spec.factory)()
        if isinstance(source, ArchiveSource):
            card = read_card(source.path())
            return DatasetRecord(
                name=spec.name, version=card["version"], sha256=card["sha256"], sizes={}
            )
    return None
