"""What a request for entries of ladders means here: for each arm the target loss, the commit that
is measured, and the one below."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from equivbench.budget import Budget
from equivbench.errors import FailedError, UsageError
from equivbench.execution.chosen_kernels import check_kernels, check_operations
from equivbench.execution.plan import Machine, this_machine
from equivbench.gap.ladder_file import LADDER_FILE, LONGEST_CHANGE
from equivbench.gate.ladder_request import HEAD, NOTHING, LadderRequest
from equivbench.gate.worktrees import commit_named, refuse_changes, repository, subject_of
from equivbench.records.files import shown
from equivbench.records.ladder import LADDER_NAME, LadderEntry, LadderSide, placed, top_of
from equivbench.registry import KERNEL_BACKENDS, PAIRS
from equivbench.request import DEFAULT_KERNELS, RunRequest
from equivbench.specs import PairSpec, TargetLoss

ROOM = 2.0
"""Budget of a run over that of the records that the target is from: a seed that is slower than
their mean comes down to it too."""


@dataclass(frozen=True)
class EntryPlan:
    """One entry that is to be measured."""

    pair: PairSpec
    target: TargetLoss
    budget: Budget
    seeds: tuple[int, ...]
    root: Path
    """Of the repository."""
    measured: LadderSide
    against: LadderSide | None
    """What is run beside it."""
    not_compared: str | None
    """Why none is."""
    change: str
    machine: Machine
    command: str

    @property
    def runs(self) -> int:
        """How many runs it takes."""
        return len(self.seeds) * (1 if self.against is None else 2)


def plans_of(request: LadderRequest) -> list[EntryPlan]:
    """An entry for each arm that ``request`` asks for.

    Raises ``UsageError`` for an unknown pair, arm or revision, an arm without a target, uncommitted
    changes, and what else makes no sense; ``FailedError`` where the device, or the ladder, cannot
    be used.
    """
    pair = PAIRS.get(request.pair)
    arms = request.arms or tuple(each.name for each in pair.contestants)
    targets = [_target_of(pair, pair.arm(name).name, request.preset) for name in arms]
    if not request.seeds or len(set(request.seeds)) < len(request.seeds):
        raise UsageError("--seeds must name each seed once, and one at least")
    root = repository(Path.cwd())
    commit = commit_named(root, request.commit)
    if request.commit == HEAD:
        refuse_changes(root, f"measure a commit as it is with --commit {commit[:12]}")
    change = subject_of(root, commit) if request.why is None else request.why.strip()
    if request.why is not None and ("\n" in change or not 0 < len(change) <= LONGEST_CHANGE):
        raise UsageError(f"--why takes one sentence of at most {LONGEST_CHANGE} characters")
    for target in targets if request.kernels is not None else ():
        check_kernels(str(request.kernels), pair, [pair.arm(target.arm)], None, request.device)
    run = RunRequest(
        device=request.device, threads=request.threads, arms=arms[:1], kernels=request.kernels
    )
    machine = this_machine(run)
    if request.kernels is not None:
        chosen = [pair.arm(target.arm) for target in targets]
        check_operations(request.kernels, pair, chosen, machine.device)
    measured = LadderSide(commit, request.kernels or DEFAULT_KERNELS)
    return [
        _plan(request, pair, target, root, measured, change[:LONGEST_CHANGE], machine)
        for target in targets
    ]


def _plan(
    request: LadderRequest,
    pair: PairSpec,
    target: TargetLoss,
    root: Path,
    measured: LadderSide,
    change: str,
    machine: Machine,
) -> EntryPlan:
    budget = _budget(request, target)
    against, reason = _below(request, pair, target, root, machine.kind)
    if against == measured:
        what = "be compared with itself"
        if request.against is None:
            what = f"be compared with itself, on top of the ladder of {pair.key} {target.arm}"
        raise UsageError(
            f"{measured.text} would {what}; name another with --commit or --against, or none"
        )
    told = replace(
        request,
        arms=(target.arm,),
        commit=measured.commit,
        against=NOTHING if against is None else _written(against, measured),
        why=change,
    )
    return EntryPlan(
        pair=pair,
        target=target,
        budget=budget,
        seeds=request.seeds,
        root=root,
        measured=measured,
        against=against,
        not_compared=reason,
        change=change,
        machine=machine,
        command=told.command(recorded=True),
    )


def _written(against: LadderSide, measured: LadderSide) -> str:
    """``against`` as ``--against`` takes it; with its backend unless both have the default."""
    plain = against.kernels == measured.kernels == DEFAULT_KERNELS
    return against.commit if plain else f"{against.commit}@{against.kernels}"


def _target_of(pair: PairSpec, arm: str, preset: str) -> TargetLoss:
    found = pair.target(arm, preset)
    if found is None:
        known = sorted(
            f"{entry.value.key} {each.arm} at {each.preset}"
            for entry in PAIRS.entries().values()
            for each in entry.value.targets
        )
        raise UsageError(
            f"the arm {arm} of {pair.key} has no target loss at {preset}; those with one are "
            f"{', '.join(known)}"
        )
    return found


def _budget(request: LadderRequest, target: TargetLoss) -> Budget:
    if request.budget is None:
        return Budget.parse(target.budget).times(ROOM)
    budget = Budget.parse(request.budget)
    if budget.kind != "seconds":
        raise UsageError(f"--budget of a ladder is in seconds, not {request.budget}")
    return budget


def _below(
    request: LadderRequest, pair: PairSpec, target: TargetLoss, root: Path, machine: str
) -> tuple[LadderSide | None, str | None]:
    """What is run beside the commit that is measured, or None and why nothing is. A commit that is
    named without a backend is run on that of the entry below where it is that entry's, else on that
    of the measured one."""
    if request.against == NOTHING:
        return None, "it was asked to run no other commit beside it (--against none)"
    below = _top(Path(request.out) / machine / LADDER_NAME, pair, target, machine)
    if request.against is not None:
        revision, _, kernels = request.against.rpartition("@")
        if revision and kernels in KERNEL_BACKENDS.entries():
            return LadderSide(commit_named(root, revision), kernels), None
        commit = commit_named(root, request.against)
        if below is not None and below.git.commit == commit:
            return below.side, None
        return LadderSide(commit, request.kernels or DEFAULT_KERNELS), None
    if below is None:
        return None, "it is the first entry of its ladder"
    try:
        return LadderSide(commit_named(root, str(below.git.commit)), below.kernels), None
    except UsageError:
        return None, f"the commit below, {str(below.git.commit)[:12]}, is not in this repository"


def _top(file: Path, pair: PairSpec, target: TargetLoss, machine: str) -> LadderEntry | None:
    """The entry on top of the ladder of one arm in ``file``; None where there is none."""
    if not file.exists():
        return None
    entries = LADDER_FILE.read(file)
    problems = [each for entry in entries for each in LADDER_FILE.problems_of(entry)]
    if problems:
        raise FailedError(f"{shown(file)} holds an entry that cannot be right: {problems[0]}")
    where = (pair.task, pair.name, target.arm, target.preset, machine, target.loss)
    return next(
        (top_of(own) for own in placed(entries) if own[0].entry.ladder == where),
        None,
    )
