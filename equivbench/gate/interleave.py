"""Two revisions measured in alternation on this machine: a fresh process a side in each round, in
the order A B B A."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from equivbench.environment import last_log_line, usable_cores, worker_environment
from equivbench.errors import (
    EquivbenchWarning,
    FailedError,
    InterruptedRunError,
    UsageError,
    unknown_name,
)
from equivbench.gate.benchmarks import BENCHMARKS
from equivbench.gate.reading import of_gate_samples
from equivbench.gate.samples import GateSamples, RoundResult, Side
from equivbench.gate.verdict import MIN_ROUNDS
from equivbench.gate.worker import selected
from equivbench.gate.worktrees import (
    InterleaveRequest,
    checked_out,
    commit_of,
    refuse_changes,
    repository,
)
from equivbench.records.files import write_lines
from equivbench.records.schema import Git

SIDES = ("baseline", "candidate")
BUSY = 0.75
"""Load a core, before anything is measured, from which on a warning is due."""
ROUND_TIMEOUT = 1800.0
"""Seconds after which a round is taken to hang."""


def check_request(request: InterleaveRequest) -> None:
    """Raise ``UsageError`` for what cannot be measured."""
    if request.rounds < MIN_ROUNDS:
        raise UsageError(
            f"--rounds {request.rounds} cannot give a bound; use at least {MIN_ROUNDS}"
        )
    if not 0 < request.seconds <= 60:
        raise UsageError(f"--seconds must be between 0 and 60, not {request.seconds:g}")
    if request.only and all(each.control for each in selected(request.only)):
        raise unknown_name(
            "benchmark", request.only[0], [each.name for each in BENCHMARKS if not each.control]
        )


def interleave(
    request: InterleaveRequest, *, progress: Callable[[str], None], out: Path | None = None
) -> tuple[Side, Side]:
    """Both revisions' measurements; with ``out`` their samples are kept as ``baseline.jsonl`` and
    ``candidate.jsonl`` there.

    Raises ``UsageError`` (unknown revision, uncommitted changes), ``FailedError`` (a revision
    without a worker, a worker that died) and on Ctrl-C ``InterruptedRunError``, with what was
    measured kept.
    """
    check_request(request)
    root = repository(Path.cwd())
    revisions = (request.baseline, request.candidate)
    commits = (commit_of(root, request.baseline), commit_of(root, request.candidate))
    if not request.allow_dirty:
        refuse_changes(root)
    _warn_if_busy()
    results: tuple[list[RoundResult], list[RoundResult]] = ([], [])
    interrupted = False
    try:
        with checked_out(root, commits) as trees:
            for index in range(request.rounds):
                for side in (0, 1) if index % 2 == 0 else (1, 0):
                    progress(
                        f"round {index + 1} of {request.rounds}: {SIDES[side]} ({revisions[side]})"
                    )
                    results[side].append(_round(trees[side], request))
    except KeyboardInterrupt:
        interrupted = True
    session, done, kept = secrets.token_hex(8), min(map(len, results)), ""
    made = {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": request.command(recorded=True),
        "session": session,
    }
    sides = []
    for name, rounds, commit, revision in zip(SIDES, results, commits, revisions, strict=True):
        samples = list(_gather(rounds, Git(commit=commit, dirty=False), revision, **made))
        if out is not None and done:
            write_lines(samples, out / f"{name}.jsonl")
            kept = f"; what was measured is in {out}"
        source = f"{out or session}/{name}"
        sides.append(Side(tuple(of_gate_samples(one, source) for one in samples)))
    if interrupted:
        raise InterruptedRunError(f"interrupted after {done} of {request.rounds} rounds{kept}")
    return sides[0], sides[1]


def _warn_if_busy() -> None:
    """Other work on the machine makes every verdict inconclusive; better to know before than
    after."""
    load, cores = os.getloadavg()[0], usable_cores()
    if load > BUSY * cores:
        text = (
            f"the machine is busy (load {load:.1f} on {cores} cores): "
            "verdicts may come out inconclusive"
        )
        warnings.warn(text, EquivbenchWarning, stacklevel=3)


def _round(tree: Path, request: InterleaveRequest) -> RoundResult:
    """Measure in a fresh process that imports the package from ``tree``; raises ``FailedError`` if
    it dies or imports another."""
    answer, log = tree.parent / "round.json", tree.parent / "worker.log"
    answer.unlink(missing_ok=True)
    arguments = ["--seconds", str(request.seconds), "--out", str(answer)]
    for pattern in request.only:
        arguments += ["--only", pattern]
    with open(log, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "equivbench.gate.worker", *arguments],
            cwd=tree,
            env=worker_environment(1, str(tree)),
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = process.wait(ROUND_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise FailedError(
                f"the worker of the {tree.name} did not end within {ROUND_TIMEOUT:g} s"
            ) from None
        finally:
            # With whatever it started.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code or not answer.exists():
        raise FailedError(
            f"the worker of the {tree.name} ended with code {code}: "
            f"{last_log_line(log) or 'it said nothing'}"
        )
    result = msgspec.json.decode(answer.read_bytes(), type=RoundResult)
    if Path(result.package) != (tree / "equivbench").resolve():
        raise FailedError(
            f"the worker of the {tree.name} imported {result.package}, not its own tree; "
            "install equivbench editable"
        )
    return result


def _gather(
    rounds: list[RoundResult], git: Git, revision: str, *, created: str, command: str, session: str
) -> Iterator[GateSamples]:
    """One line a benchmark from all rounds of a side; a round that failed makes the benchmark
    fail."""
    for name in dict.fromkeys(line.benchmark for result in rounds for line in result.lines):
        lines = [line for result in rounds for line in result.lines if line.benchmark == name]
        problem = next((line.problem for line in lines if line.problem is not None), None)
        if problem is None and len(lines) < len(rounds):
            problem = f"it ran in {len(lines)} of {len(rounds)} rounds only"
        yield GateSamples(
            created=created,
            command=command,
            session=session,
            revision=revision,
            benchmark=name,
            version=lines[0].version,
            control=lines[0].control,
            rounds=[line.seconds for line in lines if line.seconds is not None],
            problem=problem,
            environment=rounds[0].environment,
            git=git,
        )
