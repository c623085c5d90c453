"""What a tuning is asked for, and which of it makes sense."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import ClassVar

from equivbench.budget import Budget
from equivbench.errors import UsageError
from equivbench.execution.search import SEARCHED
from equivbench.request import (
    Request,
    RunRequest,
    option,
    read_seeds,
    same_option,
    write_seeds,
)
from equivbench.specs import PairSpec, Preset

_MAX_JOBS = 64
_MAX_POINTS = 400
_FEWEST_SEEDS = 2
_FIRST_SEED = 1000
"""Smaller seeds are those that results are reported for."""


@dataclass(frozen=True, kw_only=True)
class TuneRequest(Request):
    """What ``equivbench tune`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("tune",)

    pair: str = option(
        MISSING,
        "The pair, as task/pair, e.g. forcefield/vector.",
        flag=None,
        metavar="PAIR",
        completes="pairs",
    )
    trials: int = option(
        9,
        "At how many points each arm is tried at first.",
        always=True,
    )
    extensions: int = option(
        9,
        "At how many more points each arm may be tried, until both arms' best points have worse "
        "neighbours on all sides and no cliff beside them.",
    )
    seeds: tuple[int, ...] = option(
        (1000, 1001),
        "The seeds of every trial, two or more, from 1000 on: smaller ones are those that results "
        "are reported for. The default is 1000,1001.",
        read=read_seeds,
        write=write_seeds,
    )
    preset: Preset = same_option(RunRequest, "preset")
    budget: str | None = option(
        None, "The budget of each trial. The default is the preset's, which is also the least."
    )
    shorter: bool = option(
        False,
        "Allow a --budget below the preset's, at which the order of the points is often the "
        "reverse.",
    )
    device: str = same_option(RunRequest, "device")
    devices: tuple[str, ...] | None = same_option(RunRequest, "devices")
    threads: int | None = option(
        None,
        "How many CPU threads a trial uses. The default is one for each physical core, and 1 with "
        "--jobs.",
    )
    jobs: int = option(
        1,
        "How many trials run at once. With more than one the budget must be in steps or samples.",
    )
    executor: str = same_option(RunRequest, "executor")
    out: str = option(
        "results", "The results folder; the log goes to its folder tuning.", recorded=False
    )
    fresh: bool = option(False, "Discard the log of an earlier tuning.", recorded=False)


def trial_budget(request: TuneRequest, pair: PairSpec) -> Budget:
    """The budget of a trial; raises ``UsageError`` for one below the preset's that is not asked for
    in so many words."""
    least = Budget.parse(pair.presets[request.preset].budget)
    if request.budget is None:
        return least
    budget = Budget.parse(request.budget)
    if not request.shorter and (budget.kind != least.kind or budget.limit < least.limit):
        raise UsageError(
            f"--budget {budget.text} is not known to be at least the {least.text} of "
            f"{request.pair} at {request.preset}: the order of rates and sizes at a shorter budget "
            "is often the reverse; --shorter allows it"
        )
    return budget


def check_request(request: TuneRequest, budget: Budget) -> None:
    """Raise ``UsageError`` for numbers that make no sense."""
    if len(set(request.seeds)) < _FEWEST_SEEDS:
        raise UsageError(
            f"--seeds must name at least {_FEWEST_SEEDS} seeds: one cannot tell a better point "
            "from a luckier one"
        )
    if min(request.seeds) < _FIRST_SEED:
        raise UsageError(
            f"--seeds of a tuning begin at {_FIRST_SEED}, because results are reported for smaller "
            f"ones; {min(request.seeds)} is not allowed"
        )
    searched = SEARCHED[budget.kind]
    if request.trials <= 2 * len(searched):
        raise UsageError(
            f"--trials must be at least {2 * len(searched) + 1}, a first point and one on either "
            f"side along {' and '.join(searched)}, not {request.trials}"
        )
    if request.extensions < 0 or request.trials + request.extensions > _MAX_POINTS:
        raise UsageError(
            f"--extensions must be at least 0 and at most {_MAX_POINTS} with --trials, "
            f"not {request.extensions}"
        )
    if not 1 <= request.jobs <= _MAX_JOBS:
        raise UsageError(f"--jobs must be between 1 and {_MAX_JOBS}, not {request.jobs}")
    if request.jobs > 1 and request.devices:
        raise UsageError("--jobs and --devices exclude each other; give one of them")
    if request.jobs > 1 and budget.kind == "seconds":
        raise UsageError(
            "--jobs above 1 needs a budget in steps or samples: "
            "trials that share the machine share its seconds"
        )
