"""A sweep: one pair at several points of one axis. Each point is an ordinary run that says which
point it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import msgspec

from equivbench.axes import AXES, Axis, SweepRequest
from equivbench.errors import UsageError, unknown_name
from equivbench.execution.plan import RunPlan, make_plan, unique
from equivbench.registry import PAIRS
from equivbench.request import RunRequest, options_of
from equivbench.training.job import Job

_MAX_VALUES = 100


def make_sweep(request: SweepRequest, now: datetime | None = None) -> RunPlan:
    """The contests of every seed at every point; a point whose runs are finished is not repeated
    when it is run.

    Raises ``UsageError`` for an axis or a value that makes no sense, and for whatever an ordinary
    run refuses.
    """
    if request.over not in AXES:
        raise unknown_name("axis", request.over, AXES)
    if len(request.pairs) != 1:
        raise UsageError("a sweep is over one pair; name it, such as forcefield/vector")
    axis = AXES[request.over]
    values = unique(axis.read(value.strip()) for value in request.values if value.strip())
    if not 1 <= len(values) <= _MAX_VALUES:
        raise UsageError(
            f"a sweep takes 1 to {_MAX_VALUES} values, not {len(values)}; "
            "write them as --values 0.25,0.5,1"
        )
    # Each point goes on with its own earlier run. That is no option of a sweep, so its command does
    # not say so.
    request = replace(request, values=tuple(values))
    plan = make_plan(request, now)
    if axis.augmenting_only and not any(map(_augments, plan.jobs)):
        raise UsageError(
            f"no arm of {request.pairs[0]} that takes part augments, "
            f"so there is no {axis.title} to sweep over"
        )
    contests = []
    for contest in plan.contests:
        for value in values:
            everybody = value == values[0] or not axis.augmenting_only
            taking_part = [job for job in contest.jobs if everybody or _augments(job)]
            if taking_part:
                jobs = tuple(_job(job, axis, value, request) for job in taking_part)
                contests.append(replace(contest, jobs=jobs))
    return replace(plan, contests=tuple(contests))


def _job(job: Job, axis: Axis, value: str, request: SweepRequest) -> Job:
    head = job.run_id.removesuffix(f"-{job.contest}")
    changes = axis.change(value, PAIRS.get(job.pair).arm(job.arm), request.preset)
    shared = {name: getattr(request, name) for name in options_of(RunRequest) if name != "resume"}
    return msgspec.structs.replace(
        job,
        request=RunRequest(**shared, resume=True),
        run_id=f"{head}-{request.over}-{value.replace(':', '-')}-{job.contest}",
        labels={**job.labels, "sweep": request.over, "value": value},
        **{**changes, "recipe": {**job.recipe, **changes.get("recipe", {})}},
    )


def _augments(job: Job) -> bool:
    arm = PAIRS.get(job.pair).arm(job.arm)
    return arm.presets[job.request.preset].recipe.augmentation != "none"
