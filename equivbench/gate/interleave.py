"""Two revisions measured next to each other on this machine: in each round a fresh process a side,
which take their samples of a benchmark in turn, in the order A B B A."""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from equivbench.counted import counted
from equivbench.environment import busy_text
from equivbench.errors import (
    EquivbenchWarning,
    InterruptedRunError,
    UsageError,
    unknown_name,
)
from equivbench.gate.benchmarks import benchmarks, selected
from equivbench.gate.compare import compare
from equivbench.gate.process import Process
from equivbench.gate.protocol import Declared, Refused, Sample, Took, Use
from equivbench.gate.reading import of_gate_samples
from equivbench.gate.samples import GateSamples, Side
from equivbench.gate.verdict import MIN_ROUNDS
from equivbench.gate.worktrees import (
    InterleaveRequest,
    checked_out,
    commit_of,
    refuse_changes,
    repository,
)
from equivbench.records.files import write_lines
from equivbench.records.schema import Environment, Git

SIDES = ("baseline", "candidate")
FEWEST = 4
"""Samples of each side in a round, however long they are."""
WANTED = 0.10
"""The slow-down that every benchmark should be able to show: one that cannot after all rounds gets
as many again, up to :data:`AGAIN` times."""
AGAIN = 3


@dataclass
class Measured:
    """What both sides took of one benchmark."""

    declared: dict[int, Declared] = field(default_factory=dict)
    """By the place of the side in :data:`SIDES`."""
    rounds: tuple[list[list[float]], list[list[float]]] = field(default_factory=lambda: ([], []))
    problems: dict[int, str] = field(default_factory=dict)
    absent: set[int] = field(default_factory=set)
    """The sides that cannot run it on this machine: one alone has lost or gained it."""


def check_request(request: InterleaveRequest) -> None:
    """Raise ``UsageError`` for what cannot be measured."""
    if request.rounds < MIN_ROUNDS:
        raise UsageError(f"--rounds {request.rounds} can decide nothing; use at least {MIN_ROUNDS}")
    if not 0 < request.seconds <= 60:
        raise UsageError(f"--seconds must be between 0 and 60, not {request.seconds:g}")
    if request.only and all(each.control for each in selected(request.only)):
        names = [each.name for each in benchmarks() if not each.control]
        part = request.only[0].strip("*?")
        parts = [name for name in names if part in name]
        if part and parts:
            raise UsageError(
                f"no benchmark is called {request.only[0]!r}; --only '*{part}*' measures "
                f"{counted(len(parts), 'benchmark')}, such as {parts[0]!r}"
            )
        raise unknown_name("benchmark", request.only[0], names)


def interleave(
    request: InterleaveRequest,
    *,
    progress: Callable[[str], None],
    out: Path | None = None,
    threshold: float = 0.05,
) -> tuple[Side, Side]:
    """Both revisions' measurements; with ``out`` their samples are kept as ``baseline.jsonl`` and
    ``candidate.jsonl`` there. Benchmarks that could not have shown a slow-down by :data:`WANTED`
    (or twice the ``threshold``) get as many rounds again, up to :data:`AGAIN` times.

    Raises ``UsageError`` (unknown revision, uncommitted changes), ``FailedError`` (a revision
    that cannot be measured, a process that died) and on Ctrl-C ``InterruptedRunError``, with what
    was measured kept.
    """
    check_request(request)
    root = repository(Path.cwd())
    revisions = (request.baseline, request.candidate)
    commits = (commit_of(root, request.baseline), commit_of(root, request.candidate))
    if not request.allow_dirty:
        refuse_changes(root, "compare the commits as they are with --allow-dirty")
    _warn_if_busy()
    session = _Session(request, progress, revisions, commits)
    interrupted = False
    try:
        with checked_out(root, dict(zip(SIDES, commits, strict=True))) as found:
            trees = (found[SIDES[0]], found[SIDES[1]])
            for _ in range(request.rounds):
                session.round(trees)
            for _ in range(AGAIN):
                again = noisy(session.sides("measured"), max(WANTED, 2 * threshold))
                if not again:
                    break
                for _ in range(request.rounds):
                    session.round(trees, again)
    except KeyboardInterrupt:
        interrupted = True
    kept = ""
    if out is not None and session.done:
        for name, lines in zip(SIDES, session.lines(), strict=True):
            write_lines(lines, out / f"{name}.jsonl")
        kept = f"; what was measured is in {out}"
    if interrupted:
        raise InterruptedRunError(f"interrupted after {counted(session.done, 'round')}{kept}")
    return session.sides(str(out or session.name))


class _Session:
    """Rounds of two commits, and what they gave."""

    def __init__(
        self,
        request: InterleaveRequest,
        progress: Callable[[str], None],
        revisions: tuple[str, str],
        commits: tuple[str, str],
    ) -> None:
        self.request = request
        self.name = secrets.token_hex(8)
        self.done = 0
        """Rounds that are over."""
        self.measured: dict[str, Measured] = {}
        self._progress = progress
        self._revisions, self._commits = revisions, commits
        self._environments: dict[int, Environment] = {}
        self._created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def round(self, trees: tuple[Path, Path], only: Sequence[str] | None = None) -> None:
        """One round of all benchmarks, or of those named in ``only``."""
        sides: list[Process] = []
        try:
            for place, tree in enumerate(trees):
                side = Process(tree, self.request.only)
                sides.append(side)
                self._environments[place] = side.hello.environment
                for declared in side.hello.benchmarks:
                    self.measured.setdefault(declared.name, Measured()).declared[place] = declared
            wanted = [name for name in self.measured if only is None or name in only]
            for number, name in enumerate(wanted, 1):
                self._progress(
                    f"round {self.done + 1}: {name} ({number} of {len(wanted)}), "
                    f"{' against '.join(self._revisions)}"
                )
                _measure(self.measured[name], sides, name, self.request.seconds)
            self.done += 1
        finally:
            for side in sides:
                side.end()

    def lines(self) -> tuple[list[GateSamples], list[GateSamples]]:
        """The samples of both sides."""
        lines: tuple[list[GateSamples], list[GateSamples]] = ([], [])
        for name, one in self.measured.items():
            for place, declared in one.declared.items():
                if place in one.absent:
                    continue
                lines[place].append(
                    GateSamples(
                        created=self._created,
                        command=self.request.command(recorded=True),
                        session=self.name,
                        revision=self._revisions[place],
                        benchmark=name,
                        version=declared.version,
                        control=declared.control,
                        rounds=one.rounds[place],
                        problem=one.problems.get(place),
                        environment=self._environments[place],
                        git=Git(commit=self._commits[place], dirty=False),
                    )
                )
        return lines

    def sides(self, source: str) -> tuple[Side, Side]:
        """The same as they are compared."""
        first, second = (
            Side(tuple(of_gate_samples(one, f"{source}/{name}") for one in lines))
            for name, lines in zip(SIDES, self.lines(), strict=True)
        )
        return first, second


def noisy(sides: tuple[Side, Side], wanted: float) -> list[str]:
    """The benchmarks that could not have shown a slow-down by ``wanted``, and the control; their
    noise alone decides, never their change."""
    found = compare(*sides, thresholds={})
    unsure = [each.benchmark for each in found if each.power is not None and each.power > wanted]
    controls = [each.benchmark for each in found if each.control]
    return list(dict.fromkeys([*controls, *unsure])) if set(unsure) - set(controls) else []


def _measure(one: Measured, sides: Sequence[Process], name: str, seconds: float) -> None:
    """Let the sides that have it take samples in turn, for ``seconds`` each."""
    if one.problems:
        return
    asked = sorted(one.declared.keys() - one.absent)
    # Both build at once where there are cores for it: nothing is timed yet.
    for place in asked:
        sides[place].send(Use(name))
    for place in asked:
        answer = sides[place].receive()
        if isinstance(answer, Refused):
            if answer.problem is None:
                one.absent.add(place)
            else:
                one.problems[place] = answer.problem
    there = sorted(one.declared.keys() - one.absent)
    if one.problems or not there:
        return
    taken: dict[int, list[float]] = {place: [] for place in there}
    end = time.monotonic() + seconds * len(there)
    while len(taken[there[0]]) < FEWEST or time.monotonic() < end:
        order = there if len(taken[there[0]]) % 2 == 0 else there[::-1]
        for place in order:
            answer = sides[place].ask(Sample())
            if not isinstance(answer, Took):
                one.problems[place] = getattr(answer, "problem", None) or "it gave no sample"
                return
            taken[place].append(answer.seconds)
    for place, samples in taken.items():
        one.rounds[place].append(samples)


def _warn_if_busy() -> None:
    """Other work on the machine makes every verdict inconclusive; better to know before than
    after."""
    busy = busy_text()
    if busy is not None:
        text = f"{busy}: verdicts may come out inconclusive"
        warnings.warn(text, EquivbenchWarning, stacklevel=3)
