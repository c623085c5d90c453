"""Writes what README.md and the first page of the documentation say of the records, their figure,
and that of the race in the page of the evidence: ``python tools/front_page.py``."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from blocks import replaced

import equivbench as eb
from equivbench.budget import Budget
from equivbench.counted import counted
from equivbench.gap.campaigns import contest_of
from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results
from equivbench.registry import board_units
from equivbench.report.answer import leaders_part, leads, listed, telling_gaps
from equivbench.report.gaps import budget_text, paragraphs, slowdown_margin
from equivbench.report.plot import FigureOptions
from equivbench.report.render import to_markdown
from equivbench.report.table import Column, Missing, Table
from equivbench.report.text import number_text
from equivbench.specs import CONTESTANTS

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "index.md")
FIGURE = ROOT / "docs" / "figures" / "frontier.png"
SHOWN = "forcefield/vector"
RACE_FIGURE = ROOT / "docs" / "figures" / "race.png"
RACE: FigureOptions = {
    "task": "forcefield",
    "machine": "amd-epyc-f26m2-1t",
    "dataset": "gfn2-20k",
    "budget": "60s",
    "out": RACE_FIGURE,
}
"""The race with the most arms."""
PAIRS, OUTPUT = "<!-- pairs -->", "<!-- output -->"
TASKS = {
    "forcefield": "molecular forces",
    "flow": "protein flow matching",
    "voxel": "voxel denoising",
}
NETWORKS = {"equivariant": "the equivariant network", "augmented": "the plain network"}


def shown_gaps(records: Sequence[RunRecord]) -> list[PairGap]:
    """Of each pair the gap that says most, in the order of :data:`TASKS`."""
    gaps = telling_gaps(efficiency_gap(records), by_kernels=False)
    return sorted(gaps, key=lambda gap: [*TASKS].index(gap.task))


def example(gaps: Sequence[PairGap]) -> PairGap:
    """The one that is shown whole."""
    return next(gap for gap in gaps if f"{gap.task}/{gap.pair}" == SHOWN)


def with_numbers(page: str, records: Sequence[RunRecord]) -> str:
    """``page`` with its blocks as ``records`` have it: the answer, and where it has a place for
    them each pair's numbers and what a run ends with."""
    gaps = shown_gaps(records)
    page = replaced(page, "answer", f"{_answer(gaps, records)}\n")
    if PAIRS in page:
        page = replaced(page, "pairs", _table(gaps, _threads(gaps, records)))
    if OUTPUT in page:
        page = replaced(page, "output", f"```\n{_output(example(gaps))}\n```\n")
    return page


def _threads(gaps: Sequence[PairGap], records: Sequence[RunRecord]) -> list[int]:
    """The CPU threads that the runs of each of ``gaps`` computed with."""
    of_contest = {each.contest: each.environment.threads for each in records}
    return [of_contest[gap.contests[0]] for gap in gaps]


def _answer(gaps: Sequence[PairGap], records: Sequence[RunRecord]) -> str:
    """Who leads, in a sentence, and the limits of it."""
    parts = []
    for arm, own in leads(gaps).items():
        if own:
            of_tasks = [f"for {task} ({_of_other(led)})" for task, led in _by_task(own).items()]
            parts.append(f"{NETWORKS[arm]} has the lower test loss {listed(of_tasks)}")
    told = {TASKS[gap.task] for gap in gaps if gap.behind is not None}
    undecided = [
        f"{counted(len(own), 'further pair')} of {task}" if task in told else task
        for task, own in _by_task([gap for gap in gaps if gap.behind is None]).items()
    ]
    if undecided:
        parts.append(f"there is no verdict for {listed(undecided)}")
    return textwrap.fill(
        f"After {_times(gaps)} of training on CPU cores, {'; '.join(parts)}."
        f"{tuning_sentence(gaps, records)} A GPU-hour on more data may tell otherwise: none is "
        "measured yet.",
        width=200,
        break_on_hyphens=False,
    )


def tuning_sentence(gaps: Sequence[PairGap], records: Sequence[RunRecord]) -> str:
    """Of which of ``gaps`` a recipe was tuned at less than the budget, which the rules (2.1) ask
    for, with a space before it; empty where none was."""
    short: dict[str, list[str]] = {}
    for gap in gaps:
        tuned = {
            each.recipe.tuned_at
            for each in records
            if (each.task, each.pair) == (gap.task, gap.pair)
            and each.arm in CONTESTANTS
            and contest_of(each) in gap.contests
        }
        trials = [Budget.parse(text) for text in tuned if text is not None]
        below = [
            trial.limit
            for trial in trials
            if (trial.kind, trial.limit < gap.budget["limit"]) == (gap.budget["kind"], True)
        ]
        if None in tuned or below:
            how = "not tuned" if None in tuned else f"tuned at {min(below):g} s only"
            short.setdefault(how, []).append(f"`{gap.pair}`")
    if [len(pairs) for pairs in short.values()] == [len(gaps)]:
        return f" Their recipes were {next(iter(short))}."
    return "".join(f" The recipes of {listed(own)} were {how}." for how, own in short.items())


def _times(gaps: Sequence[PairGap]) -> str:
    """The budgets, from the least to the largest."""
    least, most = (take(gap.budget["limit"] for gap in gaps) for take in (min, max))
    return f"{least:g} s" if least == most else f"{least:g} to {most:g} s"


def _by_task(gaps: Sequence[PairGap]) -> dict[str, list[PairGap]]:
    found: dict[str, list[PairGap]] = defaultdict(list)
    for gap in gaps:
        found[TASKS[gap.task]].append(gap)
    return found


def _of_other(gaps: Sequence[PairGap]) -> str:
    """The leader's loss over the other's in each pair, in words."""
    parts = [leaders_part(gap).value for gap in gaps]
    numbers = listed([number_text(part, 2) for part in parts if part is not None])
    assert None not in parts
    return f"{numbers} of the other's, in {counted(len(gaps), 'pair')}"


def _table(gaps: Sequence[PairGap], threads: Sequence[int]) -> str:
    columns = (
        Column("task and pair"),
        Column("trained for, on"),
        Column("equivariant loss", "number", interval=False),
        Column("augmented loss", "number", interval=False),
        Column("ratio (95% interval)", "number"),
        Column("seeds"),
        Column("the leader could be slower by a factor of", "number", digits=2),
    )
    units = board_units()
    rows = [
        (
            f"{TASKS[gap.task]}, {gap.task}/{gap.pair}"
            + f", {units[gap.task]}" * (units[gap.task] != "1"),
            f"{budget_text(gap)}, {cores} core{'s' * (cores > 1)}, {gap.dataset['name']}",
            gap.loss_equivariant,
            gap.loss_augmented,
            gap.loss_ratio,
            gap.n_seeds,
            Missing("no verdict") if gap.behind is None else slowdown_margin(gap),
        )
        for gap, cores in zip(gaps, threads, strict=True)
    ]
    return to_markdown(Table("", columns, rows))


def _output(gap: PairGap) -> str:
    """What a run of the pair of ``gap`` ends with."""
    lines = [
        textwrap.wrap(line, 120, subsequent_indent="  ", break_on_hyphens=False)
        for line in paragraphs([gap])
    ]
    return "\n".join(line for each in lines for line in each)


if __name__ == "__main__":
    found = load_results(ROOT / "results")
    for path in PAGES:
        path.write_text(with_numbers(path.read_text(encoding="utf-8"), found), encoding="utf-8")
    shown = example(shown_gaps(found))
    eb.plot.frontier(
        found,
        pair=SHOWN,
        machine=shown.machine_key,
        dataset=shown.dataset["name"],
        budget=budget_text(shown),
        out=FIGURE,
    )
    eb.plot.race(found, **RACE)
