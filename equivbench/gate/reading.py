"""Reading one side of a comparison: run records, kernel samples and the gate's own samples, in
files or folders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from equivbench.errors import FailedError
from equivbench.gate.metrics import BY_DEFAULT, RUN_METRICS, value_of
from equivbench.gate.samples import GATE_SCHEMA_VERSION, GateSamples, Samples, Side, Unreadable
from equivbench.records.counting import counting_runs
from equivbench.records.declared import effective_variant
from equivbench.records.line_files import (
    KERNEL_FILE,
    KernelSamples,
    line_files,
    of_newest_code,
)
from equivbench.records.metrics import METRICS
from equivbench.records.plausibility import problems
from equivbench.records.schema import Environment, RunRecord
from equivbench.records.store import read_record

PROCESS_SPREAD = 0.015
"""Relative spread between processes of one kernel on one machine: the rounds of a kernel sample
share a process and its memory layout, and do not show it."""

SHARE_NOISE = 1e-3
"""An equivariance error under a thousandth of the total is rounding, or the noise of the rotations
that were drawn."""
_VERSIONS = ("python", "torch")
"""What a verdict names where the sides differ in it."""


class _Line(msgspec.Struct):
    """The fields that tell the kinds of lines apart."""

    benchmark: str | None = None
    case: str | None = None
    learning_rate: float | None = None
    run_id: str | None = None


def read_side(path: Path, metrics: Iterable[str] = ()) -> Side:
    """All that is measured at or below ``path``; what cannot be read or cannot be right is listed,
    nothing is skipped silently.

    ``metrics`` are gated in addition to those that are by default. Logs and analyses in a
    folder of records are no measurements; an analysis that cannot be right is listed all the same.
    """
    try:
        found = sorted(_files(path))
    except OSError as error:
        return Side(
            (), (Unreadable(str(path), f"{path} cannot be read: {error.strerror or error}"),)
        )
    unreadable: list[Unreadable] = []
    runs: dict[tuple[tuple[str, str], ...], list[tuple[RunRecord, str]]] = {}
    timed: dict[tuple[object, ...], Samples] = {}
    for file in found:
        try:
            if file.suffix == ".jsonl":
                for one in _of_lines(file, lenient=path.is_dir()):
                    _pool(timed, one)
                continue
            record = read_record(file)
            runs.setdefault(tuple(_run_identity(record).items()), []).append((record, str(file)))
        except FailedError as error:
            unreadable.append(Unreadable(str(file), str(error)))
        except OSError as error:
            unreadable.append(
                Unreadable(str(file), f"cannot read {file}: {error.strerror or error}")
            )
    gated = (*BY_DEFAULT, *metrics)
    of_runs = (one for own in runs.values() for one in _of_runs(_counting(own), gated))
    side = Side((*of_runs, *timed.values()), tuple(unreadable))
    if side.measurements or side.unreadable:
        return side
    what = "holds no records and no samples" if path.exists() else "does not exist"
    advice = (
        "`equivbench run`, `equivbench kernels --out` and `equivbench check --interleave --out` "
        "write some"
    )
    return Side((), (Unreadable(str(path), f"{path} {what}; {advice}"),))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for file in path.rglob("*") if path.is_dir() else ():
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.suffix in (".json", ".jsonl") and file.is_file() and not hidden:
            yield file


def _counting(runs: Sequence[tuple[RunRecord, str]]) -> dict[int, tuple[RunRecord, str]]:
    """The run of each seed that counts, with its file; repetitions replace nothing."""
    counting = counting_runs(record for record, _ in runs)
    return {one.seed: next(each for each in runs if each[0] is one) for one in counting}


def _of_lines(file: Path, *, lenient: bool) -> Iterator[Samples]:
    analyses = line_files().get(file.name)
    if lenient and analyses is not None and analyses is not KERNEL_FILE:
        for number, line in enumerate(analyses.read(file), 1):
            for problem in analyses.problems_of(line):
                raise FailedError(f"{file}, line {number}, cannot be right: {problem}")
        return
    lines = [each for each in enumerate(file.read_bytes().splitlines(), 1) if each[1].strip()]
    if not lines:
        raise FailedError(f"{file} is empty: it holds no samples; measure again")
    kernels: list[KernelSamples] = []
    for number, line in lines:
        try:
            kind = msgspec.json.decode(line, type=_Line)
            if kind.benchmark is not None:
                yield of_gate_samples(msgspec.json.decode(line, type=GateSamples), str(file))
            elif kind.case is not None:
                kernels.append(msgspec.json.decode(line, type=KernelSamples))
            elif lenient and (kind.learning_rate is not None or kind.run_id is not None):
                return  # the log of a tuning or a ladder, which lies among measurements
            else:
                raise FailedError(
                    f"{file}, line {number}, is neither a kernel sample nor one of the gate; "
                    "measure again"
                )
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FailedError(
                f"{file}, line {number}, is not a sample: {error}; measure again"
            ) from error
    # Rounds of other code are none of this side's.
    for own in of_newest_code(kernels):
        yield from (_of_kernel(one, str(file)) for one in own)


def _pool(timed: dict[tuple[object, ...], Samples], found: Samples) -> None:
    """Join rounds of the same thing from several files: each file is a process of its own."""
    key = (*found.key, tuple(sorted(found.context.items())))
    before = timed.setdefault(key, found)
    if before is found:
        return
    if set(found.measurements) & set(before.measurements):
        raise FailedError(
            f"{found.source} holds the same measurement of {found.name} as {before.source}: "
            "a copy is no further evidence, so remove one of them"
        )
    start = max(before.values, default=-1) + 1
    # Rounds that come from more than one session are no neighbours any more.
    timed[key] = replace(
        before,
        values={**before.values, **{start + n: value for n, value in found.values.items()}},
        blocks={},
        measurements=(*before.measurements, *found.measurements),
        session=None,
        dirty=bool(before.dirty or found.dirty),
        problem=before.problem or found.problem,
        disturbed=before.disturbed or found.disturbed,
        source=f"{before.source}, {found.source}",
    )


def _run_identity(record: RunRecord) -> dict[str, str]:
    told = sorted(effective_variant(record).items())
    variant = "".join(f" {name}={value}" for name, value in told)
    return {
        "name": f"{record.task}/{record.pair} {record.arm}{variant}",
        "kernels": record.model.kernels,
        "machine": record.environment.machine_key,
        "preset": record.preset,
        "budget": f"{record.budget.limit:g} {record.budget.kind}",
        "data": f"{record.dataset.name} {record.dataset.version} {record.dataset.sha256[:12]}",
        "samples": " ".join(
            f"{name}={size}" for name, size in sorted(record.dataset.sizes.items())
        ),
        "rules version": str(record.rules_version),
    }


def _of_runs(seeds: dict[int, tuple[RunRecord, str]], metrics: Sequence[str]) -> Iterator[Samples]:
    records = {seed: record for seed, (record, _) in sorted(seeds.items())}
    sources = sorted({source for _, source in seeds.values()})
    first = next(iter(records.values()))
    context = _run_identity(first)
    name = context.pop("name")
    problem = next(filter(None, map(_defect, records.values())), None)
    for metric in RUN_METRICS:
        if metric not in metrics:
            continue
        values = {seed: value_of(record, metric) for seed, record in records.items()}
        lacking = [seed for seed, value in values.items() if value is None]
        share = metric == "share"
        group = sorted({one.final.group for one in records.values() if one.final and share})
        yield Samples(
            name=name,
            metric=METRICS[metric],
            unit="seed",
            values={seed: value for seed, value in values.items() if value is not None},
            context={**context, "test group": group[0]} if group else context,
            source=sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more",
            beside=_versions(first.environment),
            deterministic=metric in BY_DEFAULT and first.budget.kind != "seconds",
            dirty=any(bool(record.git.dirty) for record in records.values()),
            clip=SHARE_NOISE if share else -math.inf,
            resolution=SHARE_NOISE if share else 0.0,
            problem=problem
            or (f"{metric} of seed {lacking[0]} was not measured" if lacking else None),
        )


def _defect(record: RunRecord) -> str | None:
    if record.status != "completed":
        return f"seed {record.seed} {record.status}: {record.reason or 'no reason was recorded'}"
    found = problems(record)
    return f"the record of seed {record.seed} is not valid: {found[0]}" if found else None


def _of_kernel(one: KernelSamples, source: str) -> Samples:
    context = {
        "dtype": one.dtype,
        "method": one.method,
        "work": f"{one.operations:.6g} operations, {one.bytes_fused:.6g} bytes",
    }
    found = _timed(
        one,
        KERNEL_FILE.versions,
        f"{one.case} {one.mode} {one.backend}",
        context,
        dict(enumerate(one.rounds)),
        source,
    )
    problem = next(iter(KERNEL_FILE.problems_of(one)), None)
    return replace(found, spread=PROCESS_SPREAD, disturbed=_throttling(one), problem=problem)


def _throttling(one: KernelSamples) -> str | None:
    """Said where the GPU was throttled in more than half of the rounds: their median is then the
    throttle's."""
    count = one.device_state.get("throttled_rounds")
    if not isinstance(count, float | int) or 2 * count <= len(one.rounds):
        return None
    cause = one.device_state.get("throttled_by", "reason unknown")
    return f"the GPU was throttled in {count:.0f} of {len(one.rounds)} rounds ({cause})"


def of_gate_samples(one: GateSamples, source: str) -> Samples:
    """The measurement that a line of the gate's own samples stands for."""
    context = {"benchmark version": one.version}
    least = {index: min(block, default=math.nan) for index, block in enumerate(one.rounds)}
    found = _timed(one, (GATE_SCHEMA_VERSION,), one.benchmark, context, least, source)
    return replace(
        found,
        blocks={index: tuple(block) for index, block in enumerate(one.rounds)},
        session=one.session,
        control=one.control,
        problem=one.problem,
    )


def _timed(
    one: KernelSamples | GateSamples,
    known: tuple[int, ...],
    name: str,
    context: dict[str, str],
    values: dict[int, float],
    source: str,
) -> Samples:
    if one.schema_version not in known:
        what = "gate" if isinstance(one, GateSamples) else "kernel"
        raise FailedError(
            f"{source}: {what} samples of schema version {one.schema_version},"
            f" this equivbench reads version {' and '.join(map(str, known))}"
        )
    return Samples(
        name=name,
        metric=METRICS["seconds"],
        unit="round",
        values=values,
        context={"machine": one.environment.machine_key, **context},
        beside=_versions(one.environment),
        measurements=(f"{one.created} {one.rounds}",),
        source=source,
        dirty=one.git.dirty,
    )


def _versions(environment: Environment) -> dict[str, str]:
    found = {"python": environment.python, **environment.packages}
    return {name: found[name] for name in _VERSIONS if name in found}
