"""An entry of a ladder measured: each seed of a commit and of the one below as a process of its
own, one after the other on this machine, in the order A B B A."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from equivbench.counted import counted
from equivbench.errors import FailedError, InterruptedRunError
from equivbench.execution import subcommand
from equivbench.execution.executors import Callback
from equivbench.gap.ladder import EntryFacts, logged, make_entry, unusable
from equivbench.gate.ladder_plan import EntryPlan
from equivbench.gate.worktrees import checked_out
from equivbench.records.declared import effective_variant
from equivbench.records.ladder import LadderEntry, LadderSide, LoggedRun
from equivbench.records.reasons import plain_reason
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results
from equivbench.request import DEFAULT_KERNELS

ATTEMPTS = 2
"""A run that did not have its machine to itself is made again once."""
MEASURED, BELOW = "measured", "below"
"""The two commits, as their folders are called."""


def measure_entry(
    plan: EntryPlan, progress: Callable[[str], None], callback: Callback
) -> tuple[LadderEntry, bytes]:
    """The entry that ``plan`` is of, and the content of its log.

    Raises ``FailedError`` where a run of the commit fails, diverges or is disturbed twice, and on
    Ctrl-C ``InterruptedRunError``. A commit below that cannot be run here, or writes records that
    compare with nothing, is a reason not to compare.
    """
    climb = _Climb(plan, progress, callback)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sides = {MEASURED: plan.measured}
    if plan.against is not None:
        sides[BELOW] = plan.against
    commits = {name: side.commit for name, side in sides.items()}
    try:
        with checked_out(plan.root, commits) as trees, tempfile.TemporaryDirectory() as folder:
            for place, seed in enumerate(plan.seeds):
                for name in list(trees) if place % 2 == 0 else list(trees)[::-1]:
                    climb.run(name, sides[name], trees[name], seed, Path(folder))
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted after {climb.done} of {counted(plan.runs, 'run')}; the ladder is as "
            "it was"
        ) from None
    compared = climb.not_compared is None
    runs: list[LoggedRun] = [
        logged(record)
        for name, records in climb.records.items()
        if name == MEASURED or compared
        for record in records
    ]
    facts = EntryFacts(
        created=created,
        command=plan.command,
        budget=plan.budget.text,
        target=plan.target.loss,
        change=plan.change,
        git=climb.records[MEASURED][0].git,
        kernels=plan.measured.kernels,
        against=plan.against if compared else None,
        not_compared=climb.not_compared,
    )
    return make_entry(runs, facts)


class _Climb:
    """The runs of one plan, and why those of the commit below are none."""

    def __init__(
        self, plan: EntryPlan, progress: Callable[[str], None], callback: Callback
    ) -> None:
        self.records: dict[str, list[RunRecord]] = {MEASURED: [], BELOW: []}
        self.not_compared = plan.not_compared
        self.done = 0
        self._plan, self._progress, self._callback = plan, progress, callback

    def run(self, name: str, side: LadderSide, tree: Path, seed: int, folder: Path) -> None:
        """Train one seed of ``side``, whose commit is in ``tree``; below ``folder`` its record is
        written."""
        if name == BELOW and self.not_compared is not None:
            return
        what = f"seed {seed} of {side.text}"
        for attempt in range(1, ATTEMPTS + 1):
            again = " once more" if attempt > 1 else ""
            self._progress(f"{what}{again} ({self.done + 1} of {self._plan.runs})")
            try:
                record = self._trained(tree, side, seed, folder / f"{name}-{seed}-{attempt}")
            except FailedError as error:
                if name == MEASURED:
                    raise
                self.not_compared = plain_reason(f"{side.text} is not compared: {error}")
                return
            why = unusable(record)
            if why is None:
                self.records[name].append(record)
                self.done += 1
                return
        raise FailedError(f"{what}: {why}; measure on a quiet machine")

    def _trained(self, tree: Path, side: LadderSide, seed: int, out: Path) -> RunRecord:
        plan = self._plan
        words = ["run", plan.pair.key, "--arm", plan.target.arm, "--preset", plan.target.preset]
        words += ["--budget", plan.budget.text, "--seeds", str(seed), "--out", str(out)]
        words += ["--device", plan.machine.device, "--threads", str(plan.machine.threads)]
        # A commit of before an arm had backends knows no other, and need not know the option.
        if side.kernels != DEFAULT_KERNELS:
            words += ["--kernels", side.kernels]
        subcommand.call(words, self._callback, tree)
        (record,) = load_results(out)
        if record.model.kernels != side.kernels:
            raise FailedError(f"it ran on {record.model.kernels}, not on {side.kernels}")
        if record.git.commit != side.commit:
            raise FailedError(
                f"the process in the checkout of {side.commit[:12]} imported "
                f"{record.git.commit or 'an installed package'}; install equivbench editable"
            )
        others = self.records[MEASURED]
        for name, own in _setting(record).items():
            if others and own != _setting(others[0])[name]:
                raise FailedError(f"its {name} is {own}, not {_setting(others[0])[name]}")
        return record


def _setting(record: RunRecord) -> dict[str, object]:
    """What two commits must share for their losses and seconds to be compared."""
    part = record.final_on_part
    return {
        "machine": record.environment.machine_key,
        "data set": f"{record.dataset.name} ({record.dataset.sha256[:12]})",
        "rules version": record.rules_version,
        "variant": effective_variant(record),
        "part of the test set": None if part is None else (part.samples, part.rotations),
    }
