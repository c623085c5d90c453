"""The board: records aggregated over seeds and ranked among their like. Built once; every format
shows these rows."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

import msgspec

from equivbench.errors import FailedError
from equivbench.gap.campaigns import campaigns
from equivbench.records.counting import counting_run
from equivbench.records.curves import ResultWeights, final_of
from equivbench.records.declared import effective_variant
from equivbench.records.disturbed import disturbance
from equivbench.records.evaluations import judged_under
from equivbench.records.metrics import METRICS
from equivbench.records.schema import RunRecord
from equivbench.report.provenance import Provenance, provenance
from equivbench.report.text import printable

DIGITS = 5
"""Significant digits of a number on the board: beyond seed noise, and the same in every format."""
LEVEL = 0.95
Figure: TypeAlias = Callable[[RunRecord], float | None]


@dataclass(frozen=True, order=True)
class BoardSetting:
    """What rows must share to be ranked together (rules.md, section 6)."""

    task: str
    dataset: str
    dataset_version: str
    dataset_sha256: str
    preset: str
    budget: str
    variant: str
    group: str
    machine_key: str
    rules_version: int


@dataclass(frozen=True)
class Row:
    """One arm over its seeds. Numbers are over the finished seeds; null where no finished seed
    measured them."""

    rank: int | None
    """Among the rows of its setting, 1 the lowest total; equal totals share a rank; null if no seed
    finished."""
    pair: str
    arm: str
    model: str
    kernels: str
    """The backend of its equivariant operations."""
    setup: str
    """Digest of model, config, kernels, wrapper and recipe: only seeds of one setup are
    aggregated."""
    day: str
    """When the first contest of its campaign began, and the ``commit``: seeds of another code or
    another day are a row of their own (:func:`equivbench.gap.campaigns.campaigns`)."""
    commit: str
    parameters: int | None
    total: float | None
    """Board metric of the annealed weights: geometric mean over seeds, with its Student interval on
    the logarithm from two seeds on."""
    total_low: float | None
    total_high: float | None
    share: float | None
    """Of the annealed weights, as are all figures that name no others."""
    share_raw: float | None
    """Of the weights where the cooldown begins, and of their average."""
    share_ema: float | None
    floor: float | None
    explained: float | None
    over_best_untrained: float | None
    """``total`` relative to that of the best predictor that needs no training, on the same test
    set."""
    samples_per_second: float | None
    """Training throughput, steady state. Like all that follow from a time it is of the runs that
    had their machine."""
    samples_per_second_all_in: float | None
    """The same with the compile seconds added to the time."""
    compile_seconds: float | None
    epochs: float | None
    seeds: int
    finished: int
    diverged: int
    """Seeds whose loss counts as infinite: one is enough to rank the row below every row
    without."""
    status: Literal["complete", "partial", "no result"]
    """Whether all, some or none of the seeds finished."""
    note: str
    """What a reader must know: unfinished seeds, a declared symmetry that failed its
    measurement."""
    beside: dict[str, float]
    """What else was measured of the annealed weights: ``energy error``, the mean squared error of a
    further output that is trained, and for each further test set, by its name, the board metric and
    the share (``larger share``)."""
    unfinished: tuple[str, ...]
    """``seed 2 failed: out of memory``, for each seed without a result."""
    provenance: Provenance


@dataclass(frozen=True)
class Board:
    """The ranked rows of one setting; ``unit`` is that of ``total`` where the task is known."""

    setting: BoardSetting
    unit: str
    rows: tuple[Row, ...]


def build_boards(
    records: Sequence[RunRecord], units: Mapping[str, str] | None = None
) -> list[Board]:
    """Boards of ``records`` in the order of their settings; ``units`` gives each task's board unit.

    Raises ``FailedError`` if there is nothing to show or a value breaks its metric's declared
    range.
    """
    return boards_of(rank_runs(records), units or {})


def boards_of(
    ranked: Mapping[BoardSetting, Sequence[tuple[Row, list[RunRecord]]]], units: Mapping[str, str]
) -> list[Board]:
    """The boards of what :func:`rank_runs` gives."""
    return [
        Board(setting, units.get(setting.task, ""), tuple(row for row, _ in rows))
        for setting, rows in ranked.items()
    ]


def rank_runs(
    records: Sequence[RunRecord],
) -> dict[BoardSetting, list[tuple[Row, list[RunRecord]]]]:
    """The rows of each setting in order of rank, each with its runs in order of seeds; of several
    finished runs of a seed the first, whose row says that there are others. Raises as
    :func:`build_boards` does. Outlines of records will do."""
    if not records:
        raise FailedError("there are no records to make a board of; `equivbench run` writes some")
    # The group a pair is tested under, for its runs that failed before their first evaluation.
    groups = {
        (record.task, record.pair): group
        for record in records
        if (group := judged_under(record)) is not None
    }
    pairs: dict[tuple[BoardSetting, str], list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.created, record.run_id)):
        setting = _setting(record, groups.get((record.task, record.pair), ""))
        pairs[setting, record.pair].append(record)
    rows: dict[BoardSetting, list[tuple[Row, list[RunRecord]]]] = defaultdict(list)
    # Of parts that records share once.
    setups: dict[tuple[int, int], str] = {}
    for setting, pair in sorted(pairs):
        for campaign in campaigns(pairs[setting, pair]):
            day = min(record.created for record in campaign)[:10]
            arms: dict[tuple[str, str], dict[int, list[RunRecord]]] = defaultdict(
                lambda: defaultdict(list)
            )
            for record in campaign:
                parts = id(record.model), id(record.recipe)
                setup = setups.get(parts) or setups.setdefault(parts, setup_digest(record))
                arms[record.arm, setup][record.seed].append(record)
            rows[setting] += [_row(arms[key], key[1], day) for key in sorted(arms)]
    return {setting: _ranked(arms) for setting, arms in rows.items()}


def setup_digest(record: RunRecord) -> str:
    """Eight hexadecimal digits that differ when model, config, kernels, wrapper or recipe do."""
    model = msgspec.to_builtins(record.model)
    for outcome in ("symmetry_verified", "symmetry_reason"):
        del model[outcome]  # of the run, not a setting of it
    recipe = msgspec.to_builtins(record.recipe)
    # Digests are older than these.
    if not recipe["symmetry_loss"]:
        del recipe["symmetry_loss"]
    if recipe["symmetry_loss_kind"] == "rotated-copy":
        del recipe["symmetry_loss_kind"]
    settings = msgspec.json.encode([model, recipe], order="sorted")
    return hashlib.sha256(settings).hexdigest()[:8]


def _setting(record: RunRecord, group: str) -> BoardSetting:
    return BoardSetting(
        task=_clean(record.task),
        dataset=_clean(record.dataset.name),
        dataset_version=_clean(record.dataset.version),
        dataset_sha256=_clean(record.dataset.sha256),
        preset=_clean(record.preset),
        budget=f"{record.budget.limit:.12g} {record.budget.kind}",
        variant=_clean(
            ", ".join(
                f"{name}={value}" for name, value in sorted(effective_variant(record).items())
            )
        ),
        group=judged_under(record) or group,
        machine_key=_clean(record.environment.machine_key),
        rules_version=record.rules_version,
    )


def finished_runs(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Those that have a result."""
    return [record for record in runs if _has_result(record)]


def _has_result(record: RunRecord) -> bool:
    return record.status == "completed" and record.final is not None


def _row(by_seed: dict[int, list[RunRecord]], setup: str, day: str) -> tuple[Row, list[RunRecord]]:
    """The row of one arm's records, each seed's in order of time, with the run of each seed that
    counts."""
    chosen = {seed: counting_run(by_seed[seed]) for seed in sorted(by_seed)}
    seeds = list(chosen.values())
    first = seeds[0]
    finished = finished_runs(seeds)
    lost = [record for record in seeds if not _has_result(record)]
    total, low, high = log_interval(_measured("total", finished, final("total")))
    row = Row(
        rank=None,
        pair=_clean(first.pair),
        arm=_clean(first.arm),
        model=_clean(first.model.name),
        kernels=_clean(first.model.kernels),
        setup=setup,
        day=_clean(day),
        commit=_clean((first.git.commit or "")[:12]) + "-dirty" * bool(first.git.dirty),
        parameters=first.model.parameters,
        total=total,
        total_low=low,
        total_high=high,
        **{name: over_seeds(name, finished) for name in FIGURES},
        seeds=len(seeds),
        finished=len(finished),
        diverged=sum(record.status == "diverged" for record in seeds),
        status="no result" if not finished else "partial" if lost else "complete",
        note="; ".join([*_notes(seeds, len(finished)), *_repetitions(by_seed)]),
        beside=_beside(finished),
        unfinished=tuple(
            _clean(
                f"seed {each.seed} "
                f"{'without a result' if each.status == 'completed' else each.status}: "
                f"{each.reason or 'no reason given'}"
            )
            for each in lost
        ),
        provenance=provenance(seeds),
    )
    return row, seeds


def _beside(finished: list[RunRecord]) -> dict[str, float]:
    """Means over the finished seeds that measured them, geometric ones of losses."""
    found: dict[str, list[float | None]] = defaultdict(list)
    for run in finished:
        for name, error in (run.final.errors if run.final else {}).items():
            found[f"{name} error"].append(error)
        for name, test in run.out_of_distribution.items():
            found[name].append(test.total)
            found[f"{name} share"].append(test.share)
    beside: dict[str, float] = {}
    for name, several in found.items():
        values = [value for value in several if value is not None]
        share = name.endswith(" share")
        mean = math.fsum(values) / len(values) if share and values else log_interval(values)[0]
        if mean is not None:
            beside[_clean(name)] = float(f"{mean:.{DIGITS}g}")
    return beside


def _repetitions(by_seed: dict[int, list[RunRecord]]) -> list[str]:
    """What is said of seeds that finished more than once: a repetition replaces nothing."""
    found = []
    for seed, runs in sorted(by_seed.items()):
        totals = [run.final.total for run in finished_runs(runs) if run.final and run.final.total]
        if len(totals) > 1:
            shown = ", ".join(f"{total:.3g}" for total in totals)
            found.append(f"seed {seed} was run {len(totals)} times ({shown}): the first counts")
    return found


def _ranked(rows: list[tuple[Row, list[RunRecord]]]) -> list[tuple[Row, list[RunRecord]]]:
    """Rows in order of rank: those with a diverged seed (an infinite loss) after all others, those
    without result last."""

    def order(row: Row) -> tuple[bool, bool, float]:
        return row.total is None, row.diverged > 0, math.inf if row.total is None else row.total

    places: dict[tuple[bool, bool, float], int] = {}
    ranked = []
    for place, (row, runs) in enumerate(sorted(rows, key=lambda each: order(each[0])), start=1):
        rank = None if row.total is None else places.setdefault(order(row), place)
        ranked.append((replace(row, rank=rank), runs))
    return ranked


def _notes(seeds: list[RunRecord], finished: int) -> list[str]:
    notes = []
    if finished < len(seeds):
        others = Counter(record.status for record in seeds if record.status != "completed")
        why = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        notes.append(f"{finished} of {len(seeds)} finished ({why or 'no result'})")
    notes += unconfirmed(seeds)
    busy = [str(record.seed) for record in seeds if disturbance(record) is not None]
    if busy:
        notes.append(f"the machine was busy during seed {', '.join(busy)}: no speed of it counts")
    return notes


def unconfirmed(runs: Sequence[RunRecord]) -> list[str]:
    """What is said of a declared symmetry that a run refutes, or that none confirms; the reason is
    that of the first such run."""
    declared = runs[0].model.symmetry
    verdicts = [run.model.symmetry_verified for run in runs]
    if declared == "none" or (True in verdicts and False not in verdicts):
        return []
    first = runs[verdicts.index(False) if False in verdicts else 0]
    reason = first.model.symmetry_reason or first.reasons.get("model.symmetry_verified")
    verb = "which its measurement refutes" if False in verdicts else "not confirmed"
    return [f"declared {declared} symmetry, {verb}: {_clean(reason or 'no reason given')}"]


@lru_cache(4096)
def _clean(text: str) -> str:
    return printable(text).strip()


def whole_rate(record: RunRecord) -> float | None:
    """Training samples a second of the arm, all of its devices together."""
    rate = record.throughput.samples_per_second
    return None if rate is None else record.devices_per_arm * rate


def all_in(record: RunRecord) -> float | None:
    """The same with the compile seconds added to the time."""
    rate = whole_rate(record)
    if rate is None or rate <= 0 or record.samples <= 0:
        return None
    # Clocks count the seconds of every device.
    compiled = record.clock.compile / record.devices_per_arm
    return record.samples / (record.samples / rate + compiled)


def undisturbed(figure: Figure) -> Figure:
    """What reads a time or a speed where the run had its machine, and nothing where it had not:
    no time-based figure of such a run is used."""
    return lambda run: None if disturbance(run) is not None else figure(run)


def final(name: str, weights: ResultWeights = "annealed") -> Figure:
    """What reads ``name`` from a run's final evaluation of those weights."""

    def figure(run: RunRecord) -> float | None:
        test = final_of(run, weights)
        return None if test is None else getattr(test, name)

    return figure


FIGURES: dict[str, tuple[str, Figure]] = {
    "share": ("share", final("share")),
    "share_raw": ("share", final("share", "raw")),
    "share_ema": ("share", final("share", "ema")),
    **{name: (name, final(name)) for name in ("floor", "explained", "over_best_untrained")},
    "samples_per_second": ("samples_per_second", undisturbed(whole_rate)),
    "samples_per_second_all_in": ("samples_per_second", undisturbed(all_in)),
    "compile_seconds": ("compile_seconds", undisturbed(lambda run: run.clock.compile)),
    "epochs": ("epochs", lambda run: run.epochs),
}
"""What a row says of its finished seeds beside the total: the metric that it is one of, and where a
run has it."""


def over_seeds(name: str, runs: Sequence[RunRecord]) -> float | None:
    """The mean or the largest of a figure, as its metric declares, rounded; None without any."""
    metric, figure = FIGURES[name]
    values = _measured(metric, runs, figure)
    if not values:
        return None
    largest = METRICS[metric].aggregate == "max"
    return _rounded(max(values) if largest else math.fsum(values) / len(values))


def _measured(metric: str, runs: Sequence[RunRecord], figure: Figure) -> list[float]:
    """What ``runs`` measured; raises ``FailedError`` for a value that cannot be one of
    ``metric``."""
    found = []
    for run in runs:
        number = figure(run)
        if number is None:
            continue
        problem = METRICS[metric].problem(number)
        if problem is not None:
            raise FailedError(
                f"record {run.run_id} of {run.task}/{run.pair} {run.arm}: {problem}; "
                "see `equivbench results validate`"
            )
        found.append(number)
    return found


def log_interval(values: list[float]) -> tuple[float | None, float | None, float | None]:
    """Geometric mean of ``values`` with the Student interval of the mean logarithm; (mean, low,
    high)."""
    if not values:
        return None, None, None
    if min(values) <= 0:
        return 0.0, None, None
    logs = [math.log(value) for value in values]
    mean = math.fsum(logs) / len(logs)
    if len(logs) == 1:
        return _rounded(values[0]), None, None
    from scipy.special import stdtrit

    variance = math.fsum((value - mean) ** 2 for value in logs) / (len(logs) - 1)
    half = float(stdtrit(len(logs) - 1, 0.5 + LEVEL / 2)) * math.sqrt(variance / len(logs))
    return _rounded(math.exp(mean)), _rounded(_exp(mean - half)), _rounded(_exp(mean + half))


def _exp(value: float) -> float | None:
    """exp, or None where two wildly different seeds leave the interval unbounded in floating
    point."""
    return math.exp(value) if value < 700 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
