"""Kernel backends beside each other: the same arm's training step, and the same operation, on e3nn
eager, on the best backend of somebody else and on ours."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from equivbench.gap.campaigns import telling_campaign
from equivbench.records.declared import as_declared, effective_variant
from equivbench.records.disturbed import disturbance
from equivbench.records.line_files import KernelSamples, of_newest_code
from equivbench.records.schema import RunRecord
from equivbench.registry import KERNEL_BACKENDS, MODELS, PAIRS
from equivbench.report.gaps import variant_text
from equivbench.report.kernels import BASE, speed_up
from equivbench.report.table import Cell, Column, Missing, Table
from equivbench.specs import EQUIVARIANT, MODES

OURS = ("torch", "fused")
"""Our own backends: plain torch operations, which networks use by default, and generated code."""
STEP_COLUMNS = (
    Column("pair", key=True),
    Column("arm", key=True),
    Column("preset", key=True),
    Column("data", key=True, show="differs"),
    Column("variant", key=True, show="filled"),
    Column("machine", key=True),
    Column("model", key=True, show="needed"),
    Column(BASE, "seconds", "e3nn eager"),
    Column("other", heading="best of others"),
    Column("other_seconds", "seconds", "its step"),
    *(Column(name, "seconds", f"ours: {name}") for name in OURS),
    Column("x torch", "number", "fused x torch"),
    Column("x e3nn", "number", "ours x e3nn"),
)
OPERATION_COLUMNS = (
    Column("machine", key=True),
    Column("dtype", key=True, show="differs"),
    Column("case", key=True),
    Column("mode", key=True),
    Column(BASE, "seconds", "e3nn eager"),
    Column("other", heading="best of others"),
    Column("other_seconds", "seconds", "its time"),
    Column("ours", heading="best of ours"),
    Column("ours_seconds", "seconds", "its time"),
    Column("x e3nn", "number", "ours x e3nn"),
    Column("x other", "number", "ours x others"),
)
STEP_LEGEND = (
    "seconds of a training step, median, mean over the finished seeds of the runs with the most "
    "seeds on that backend; runs on different backends were not made in turn, so a difference of a "
    "few percent says nothing; x: times as fast"
)
OPERATION_LEGEND = (
    "least time a call; x: times as fast, the median over rounds that alternate where both were "
    "timed in one process"
)
Device = Literal["cpu", "cuda"]
NOT_RUN, CANNOT = Missing("not run"), Missing("cannot")


@dataclass(frozen=True)
class ArmSteps:
    """The training step of one arm under one setting, by the backend of its equivariant
    operations."""

    task: str
    pair: str
    arm: str
    preset: str
    dataset: str
    variant: str
    machine_key: str
    device: Device
    """The kind of device that it was run on."""
    model: str
    seconds: Mapping[str, float]


def arm_steps(records: Iterable[RunRecord]) -> list[ArmSteps]:
    """The steps of every arm whose operations come from a kernel backend, runs of a sweep left out.
    Outlines of records will do. No plug-in is loaded: an arm of one counts if it was run on two
    backends."""
    arms: dict[tuple[str, ...], dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        timed = record.status == "completed" and record.throughput.step_seconds is not None
        timed = timed and disturbance(record) is None
        told = effective_variant(record)
        if timed and as_declared(told):
            key = (
                record.task,
                record.pair,
                record.arm,
                record.preset,
                record.dataset.name,
                variant_text(told),
                record.environment.machine_key,
                "cpu" if record.environment.device == "cpu" else "cuda",
                record.model.name,
            )
            arms[key][record.model.kernels].append(record)
    found = []
    # Of a pair the equivariant arm first.
    for place in sorted(arms, key=lambda each: (*each[:2], each[2] != EQUIVARIANT, *each[2:])):
        task, pair, arm, preset, data, variant, machine, device, model = place
        backends = arms[place]
        if len(backends) > 1 or _takes_kernels(model):
            steps = {name: _mean_step(own) for name, own in sorted(backends.items())}
            kind: Device = "cpu" if device == "cpu" else "cuda"
            setting = (task, pair, arm, preset, data, variant, machine)
            found.append(ArmSteps(*setting, kind, model, steps))
    return found


def _mean_step(records: Sequence[RunRecord]) -> float:
    """The geometric mean over seeds of the median step, of the campaign that says most."""
    steps = [each.throughput.step_seconds for each in telling_campaign(records)]
    return math.exp(statistics.fmean(math.log(each.p50) for each in steps if each is not None))


def steps_table(steps: Sequence[ArmSteps], title: str = "") -> Table:
    """Make the table of ``steps``, a row an arm under one setting, with the commands that would
    fill its gaps below."""
    rows = [_steps_row(each) for each in steps]
    return Table(title, STEP_COLUMNS, rows, [*_commands(steps), STEP_LEGEND])


def _steps_row(each: ArmSteps) -> list[Cell]:
    able = backends_of(each.model, each.device)
    others = {name: own for name, own in each.seconds.items() if name not in (BASE, *OURS)}
    best = min(others, key=lambda name: others[name]) if others else None
    own = {name: each.seconds[name] for name in OURS if name in each.seconds}
    lacking = NOT_RUN if _others(able) else CANNOT
    seconds: dict[str, Cell] = {
        name: each.seconds.get(name, NOT_RUN if name in able else CANNOT) for name in (BASE, *OURS)
    }
    return [
        f"{each.task}/{each.pair}",
        each.arm,
        each.preset,
        each.dataset,
        each.variant,
        each.machine_key,
        each.model,
        seconds[BASE],
        lacking if best is None else best,
        None if best is None else others[best],
        *(seconds[name] for name in OURS),
        _over(own.get("torch"), own.get("fused")),
        _over(each.seconds.get(BASE), min(own.values(), default=None)),
    ]


def _over(slow: float | None, fast: float | None) -> float | None:
    return None if slow is None or fast is None else slow / fast


def backends_of(model: str, device: Device) -> list[str]:
    """The built-in backends that are declared to run on that kind of ``device`` and to do all
    operations which the built-in ``model`` takes from one; none of a model that is not built in."""
    known = MODELS.known(model)
    if known is None or not known.operations:
        return []
    needed = set(known.operations)
    backends = KERNEL_BACKENDS.without_plugins().items()
    return [name for name, each in backends if needed <= each.value.operations_on(device)]


def _others(able: Sequence[str]) -> list[str]:
    return [name for name in able if name not in (BASE, *OURS)]


def _commands(steps: Sequence[ArmSteps]) -> list[str]:
    """What would make the steps that are not there, a sentence for each pair and the machines that
    lack the same."""
    machines = sorted({(each.machine_key, each.device) for each in steps})
    known: dict[tuple[str, str], set[str]] = defaultdict(set)
    for each in steps:
        known[f"{each.task}/{each.pair}", each.machine_key] |= each.seconds.keys()
    lacking: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for pair in sorted({*(pair for pair, _ in known), *_taking_kernels()} if steps else ()):
        for machine, device in machines:
            names = [name for name in _able(pair, device) if name not in known[pair, machine]]
            if names:
                lacking[pair, tuple(names)].append(machine)
    found = []
    for (pair, missed), where in lacking.items():
        command = f"equivbench run {pair} --kernels {'NAME' if missed[1:] else missed[0]}"
        on = "any machine" if len(where) == len(machines) else " and ".join(where)
        found.append(f"{pair} was not run on {', '.join(missed)} (on {on}): {command}")
    if found:
        found.append(
            "equivbench doctor says which backends are installed, and how to get the others"
        )
    return found


def _taking_kernels() -> list[str]:
    """The built-in pairs of which a contestant takes its operations from a backend."""
    return [
        name
        for name, entry in PAIRS.without_plugins().items()
        if any(_takes_kernels(arm.model) for arm in entry.value.contestants)
    ]


def _takes_kernels(model: str) -> bool:
    known = MODELS.known(model)
    return known is not None and known.kernels


def _able(pair: str, device: Device) -> list[str]:
    """The backends that do on that kind of device what the contestants of the built-in ``pair``
    take from one."""
    known = PAIRS.known(pair)
    if known is None:
        return []
    each = [
        backends_of(arm.model, device) for arm in known.contestants if _takes_kernels(arm.model)
    ]
    return [name for name in each[0] if all(name in own for own in each)] if each else []


def operations_table(samples: Sequence[KernelSamples], title: str = "") -> Table:
    """Make the table of ``samples``: each operation and mode of each machine on e3nn eager, the
    fastest of other backends and the fastest of ours, where two of the three were timed."""
    cases: dict[tuple[str, str, str, str], list[KernelSamples]] = defaultdict(list)
    for sample, *_ in of_newest_code(samples):
        key = (sample.environment.machine_key, sample.dtype, sample.case, sample.mode)
        cases[key].append(sample)
    ordered = sorted(cases, key=lambda key: (*key[:3], MODES.index(key[3])))
    rows = [row for key in ordered if (row := _operation_row(key, cases[key])) is not None]
    return Table(title, OPERATION_COLUMNS, rows, [OPERATION_LEGEND] if rows else [])


def _operation_row(
    key: tuple[str, str, str, str], samples: Sequence[KernelSamples]
) -> list[Cell] | None:
    base = _fastest(samples, lambda name: name == BASE)
    other = _fastest(samples, lambda name: name not in (BASE, *OURS))
    ours = _fastest(samples, lambda name: name in OURS)
    if sum(each is not None for each in (base, other, ours)) < 2:
        return None
    return [
        *key,
        None if base is None else min(base.rounds),
        None if other is None else other.backend,
        None if other is None else min(other.rounds),
        None if ours is None else ours.backend,
        None if ours is None else min(ours.rounds),
        None if base is None or ours is None else speed_up(ours, base),
        None if other is None or ours is None else speed_up(ours, other),
    ]


def _fastest(
    samples: Sequence[KernelSamples], among: Callable[[str], bool]
) -> KernelSamples | None:
    chosen = [each for each in samples if among(each.backend)]
    return min(chosen, key=lambda each: min(each.rounds), default=None)
