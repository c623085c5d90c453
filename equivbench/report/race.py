"""The race: all arms of a task under one setting in one table, whichever pair they come from, with
what training and a prediction cost beside the loss; and what averaging the predictions of a plain
network over rotations would make of both.

A board ranks the same rows; here each arm has one row, that of its largest campaign, and stands
beside arms that it did not take turns with, so a race names no winner. What it decides is whether
an arm is ahead of the augmented one of its own pair, seed by seed, where the two took turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache

from equivbench.gap.contrasts import ArmContrast, arm_contrasts, arm_verdicts
from equivbench.gap.finals import averaged_loss
from equivbench.gap.intervals import UNKNOWN, Quantity, over_seeds
from equivbench.gap.pairing import Setting
from equivbench.records.disturbed import disturbance
from equivbench.records.schema import RunRecord, Test
from equivbench.report.arms import mean
from equivbench.report.board import BoardSetting, Row, finished_runs, whole_rate
from equivbench.report.formats import SETTING, data_text, setting_text
from equivbench.report.gaps import seeds_text
from equivbench.report.table import Cell, Column, Table
from equivbench.report.text import loss_in
from equivbench.report.words import LOSS, SHARE
from equivbench.specs import AUGMENTED, EQUIVARIANT

Ranked = Mapping[BoardSetting, Sequence[tuple[Row, list[RunRecord]]]]
"""As :func:`equivbench.report.board.rank_runs` gives them."""
FEWEST = 3
"""Arms of a race that is shown beside the boards: two are a pair, which has its gap."""
COLUMNS = (
    Column("pair", key=True),
    Column("arm", key=True),
    Column("averaged_over", key=True, show="filled", heading="averaged over"),
    Column("kernels", key=True, show="needed"),
    Column("model", key=True, show="needed"),
    Column("setup", key=True, show="needed"),
    LOSS,
    Column("over_augmented", show="filled", heading="over augmented"),
    Column("verdict", show="filled", wraps=True),
    SHARE,
    Column("training", "number", unit="samples/s"),
    Column("inference", "number", unit="samples/s"),
    Column("parameters"),
    Column("tuned"),
    Column("front", heading="Pareto"),
    Column("seeds"),
    Column("day", key=True, show="differs"),
    Column("commit", key=True, show="differs"),
    Column("note", show="filled", wraps=True),
)
LEGEND = (
    "Loss: at the end of the budget, on the whole test set: geometric mean over finished seeds "
    "with its 95% interval; share: the part of it that is a symmetry error; training: samples a "
    "second without compilation; inference: samples a second of a forward pass without gradients.",
    "Over augmented: the loss over that of the pair's augmented arm, seed by seed, with its 95% "
    "interval; the verdict is that of Student's paired test at 5% after Holm's correction over all "
    "arms of the race that can be decided. Whether the equivariant arm leads the gap says.",
    "Averaged over n: the loss to be expected of the mean of n predictions under random rotations, "
    "twirled + equivariance / n of the same runs, at the measured speed of such means; on a grid "
    "without the error of turning it.",
    "Tuned: the budget of a trial of `equivbench tune`; a rate that is not tuned is that of "
    "another arm, so the arm may do better. Pareto: no other row is at least as good in "
    "loss and in inference and better in one of them.",
)
APART = (
    "Arms of another day or commit did not take turns with the others: a difference in speed may "
    "be the machine's."
)


@dataclass(frozen=True)
class RaceRow:
    """An arm, as it is or averaged. What was not measured is unknown or None."""

    row: Row
    """Of the board, with its provenance."""
    averaged_over: int | None
    """Rotations that each prediction is averaged over at test time; None: the arm as it is."""
    loss: Quantity
    share: Quantity
    """Of the equivariance error in the loss."""
    over_augmented: Quantity
    """The loss over that of the pair's augmented arm, seed by seed; unknown for that arm itself and
    for averages."""
    verdict: str
    """Whether it is ahead of that arm, or why that is not decided; empty where there is no ratio,
    and for the equivariant arm, of which the gap says it."""
    training: float | None
    """Samples a second, of all devices of the arm together; like ``inference`` over the runs that
    had their machine."""
    inference: float | None
    """Samples a second, on one device."""
    tuned_at: str | None
    """The budget of a trial; None where the recipe is not tuned."""
    on_front: bool
    """Whether no other row of the race is at least as good in loss and in inference and better in
    one of them."""
    runs: tuple[RunRecord, ...]
    """The finished runs, whole."""

    @property
    def label(self) -> str:
        """What names it in a figure."""
        averaged = f", {self.averaged_over} rotations" if self.averaged_over else ""
        return f"{self.row.pair} {self.row.arm}{averaged}"


@dataclass(frozen=True)
class Race:
    """The rows of one setting, the lowest loss first; those with a diverged seed come after all
    others. ``unit`` is that of the loss where the task is known."""

    setting: BoardSetting
    unit: str
    rows: tuple[RaceRow, ...]


def races_of(
    ranked: Ranked,
    records: Iterable[RunRecord],
    units: Mapping[str, str],
    whole: Callable[[RunRecord], RunRecord] = lambda record: record,
    fewest: int = FEWEST,
) -> list[Race]:
    """The races of what ``rank_runs`` gives of ``records``, of settings with ``fewest`` arms or
    more; points of a sweep race with nobody. ``whole`` gives the record of what may be an
    outline."""
    found = []
    contrasts_of = _contrasts(records, whole)
    for setting, rows in ranked.items():
        entrants = _entrants(rows)
        swept = any("sweep" in run.variant for _, runs in entrants for run in runs)
        if swept or len({(row.pair, row.arm) for row, _ in entrants}) < fewest:
            continue
        field = [
            _Entrant(row, runs, tuple(map(whole, finished_runs(runs)))) for row, runs in entrants
        ]
        compared = _against_augmented(field, contrasts_of)
        raced = [each for entrant in field for each in _rows(entrant, compared.get(entrant.key))]
        front = pareto_front(
            [(None if each.row.diverged else each.loss.value, each.inference) for each in raced]
        )
        raced = [replace(each, on_front=place in front) for place, each in enumerate(raced)]
        found.append(Race(setting, units.get(setting.task, ""), tuple(sorted(raced, key=_order))))
    return found


def _entrants(
    rows: Iterable[tuple[Row, list[RunRecord]]],
) -> list[tuple[Row, list[RunRecord]]]:
    """Of each arm in each setup the row with the most finished seeds, the newest of equals."""
    chosen: dict[tuple[str, ...], tuple[Row, list[RunRecord]]] = {}
    for row, runs in rows:
        key = (row.pair, row.arm, row.setup)
        before = chosen.get(key)
        if before is None or (row.finished, row.day) > (before[0].finished, before[0].day):
            chosen[key] = row, runs
    return list(chosen.values())


@dataclass(frozen=True)
class _Entrant:
    """An arm in one setup: its row of the board, its runs and, whole, those that have a result."""

    row: Row
    runs: Sequence[RunRecord]
    done: tuple[RunRecord, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.row.pair, self.row.arm, self.row.setup


def _against_augmented(
    field: Sequence[_Entrant], contrasts_of: Callable[[RunRecord], list[ArmContrast]]
) -> dict[tuple[str, str, str], tuple[Quantity, str]]:
    """By key of each arm that shared seeds with the augmented one of its pair, the ratio of their
    losses and the verdict; ``contrasts_of`` gives the contrasts of a run's arm."""
    contrasts = {}
    for each in field:
        setting = Setting.of(each.runs[0])
        shared = {
            len(found.run_ids & {run.run_id for run in each.runs}): found
            for found in contrasts_of(each.runs[0])
            if found.setting == setting
        }
        if max(shared, default=0):
            contrasts[each.key] = shared[max(shared)]
    verdicts = arm_verdicts(list(contrasts.values()))
    return {
        key: (found.ratio, "" if key[1] == EQUIVARIANT else verdict)
        for (key, found), verdict in zip(contrasts.items(), verdicts, strict=True)
    }


def _contrasts(
    records: Iterable[RunRecord], whole: Callable[[RunRecord], RunRecord]
) -> Callable[[RunRecord], list[ArmContrast]]:
    """What gives the contrasts of a run's arm with the augmented one of its pair, each made once;
    none of that arm itself."""
    pairs: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        pairs[record.task, record.pair].append(record)

    @cache
    def of_arm(task: str, pair: str, arm: str) -> list[ArmContrast]:
        return [] if arm == AUGMENTED else arm_contrasts(pairs[task, pair], arm, whole)

    return lambda run: of_arm(run.task, run.pair, run.arm)


def _rows(entrant: _Entrant, compared: tuple[Quantity, str] | None) -> list[RaceRow]:
    """The row of the arm as it is, ``compared`` with the augmented one, and, of a plain network
    without a wrapper, those averaged over as many rotations as all its finished runs timed."""
    row, runs, done = entrant.row, entrant.runs, entrant.done
    own = _row(row, runs, done, None)
    if compared is not None:
        own = replace(own, over_augmented=compared[0], verdict=compared[1])
    model = runs[0].model
    if model.symmetry != "none" or model.wrapper is not None or not done:
        return [own]
    timed = set.intersection(*({*run.inference.twirl} for run in done))
    return [own, *(_row(row, runs, done, n) for n in sorted(map(int, timed)))]


def _row(
    row: Row, runs: Sequence[RunRecord], done: tuple[RunRecord, ...], n: int | None
) -> RaceRow:
    tests = [run.final for run in done if run.final is not None]
    losses, shares = _averaged(tests, n or 1)
    # Of a run that did not have its machine no time counts.
    timed = [run for run in done if disturbance(run) is None]
    speeds = [
        run.inference.samples_per_second if n is None else run.inference.twirl[str(n)]
        for run in timed
    ]
    return RaceRow(
        row=row,
        averaged_over=n,
        loss=over_seeds(losses, geometric=True),
        share=over_seeds(shares, least=0.0, most=1.0),
        over_augmented=UNKNOWN,
        verdict="",
        training=mean(map(whole_rate, timed)),
        inference=mean(speeds),
        tuned_at=runs[0].recipe.tuned_at,
        on_front=False,
        runs=done,
    )


def _averaged(tests: Sequence[Test], n: int) -> tuple[list[float], list[float]]:
    """(losses, shares) of ``tests``, one a seed, averaged over ``n`` rotations; none of those that
    were not measured."""
    losses = [loss for test in tests if (loss := averaged_loss(test, n)) is not None]
    shares = [
        test.equivariance / n / loss
        for test in tests
        if test.equivariance is not None and (loss := averaged_loss(test, n))
    ]
    return losses, shares


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> set[int]:
    """The places of those of ``points``, (loss, speed), that no other has both a lower or equal
    loss and a higher or equal speed than, one of them truly so; what is not known has no place."""
    known = {
        place: (loss, speed)
        for place, (loss, speed) in enumerate(points)
        if loss is not None and speed is not None
    }
    return {
        place
        for place, (loss, speed) in known.items()
        if not any(
            other != (loss, speed) and other[0] <= loss and other[1] >= speed
            for other in known.values()
        )
    }


def _order(each: RaceRow) -> tuple[bool, bool, float, str]:
    loss = each.loss.value
    return loss is None, each.row.diverged > 0, loss or 0.0, each.label


def race_table(race: Race) -> Table:
    """Make the table of one race: the setting above it, what the columns mean below."""
    unit = f"; {loss_in(race.unit)}" if race.unit else ""
    return Table(
        f"The race: {setting_text(race.setting)}",
        COLUMNS,
        [_cells(each) for each in race.rows],
        notes=[*LEGEND, *_apart(race)],
        caption=f"{data_text(race.setting)}{unit}.",
    )


def race_tables(races: Sequence[Race]) -> list[Table]:
    """Make the tables of ``races``, to be read one below the other: what the columns mean is said
    below the last."""
    tables = [race_table(race) for race in races]
    others = zip(races, tables[:-1], strict=False)
    return [*(replace(table, notes=_apart(race)) for race, table in others), *tables[-1:]]


def race_sheet(races: Sequence[Race]) -> Table:
    """Make one table of all rows of ``races``, their settings in front."""
    columns = (*SETTING, Column("unit"), *COLUMNS)
    rows = [
        [*astuple(race.setting), race.unit, *_cells(each)] for race in races for each in race.rows
    ]
    return Table("", columns, rows)


def _apart(race: Race) -> list[str]:
    together = {(each.row.day, each.row.commit) for each in race.rows}
    return [APART] if len(together) > 1 else []


def _cells(each: RaceRow) -> list[Cell]:
    row = each.row
    return [
        row.pair,
        row.arm,
        "" if each.averaged_over is None else str(each.averaged_over),
        row.kernels,
        row.model,
        row.setup,
        each.loss,
        None if each.over_augmented.value is None else each.over_augmented,
        each.verdict,
        each.share,
        each.training,
        each.inference,
        row.parameters,
        "not tuned" if each.tuned_at is None else f"at {each.tuned_at}",
        "yes" if each.on_front else "",
        seeds_text(row.finished, row.seeds),
        row.day,
        row.commit,
        row.note,
    ]
