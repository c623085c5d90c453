"""The commands that read records and train nothing: ``gap``, ``frontier``, ``plot``, ``leaderboard
export`` and ``analyze baselines``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from equivbench.cli.completion import completer
from equivbench.cli.options import (
    RESULTS,
    Json,
    ResultsArgument,
    ResultsOption,
    ShortJson,
    chosen_format,
    results_place,
)
from equivbench.cli.output import message, print_json, print_table, print_text
from equivbench.errors import FailedError, IncomparableError, UsageError
from equivbench.records.curves import ResultWeights
from equivbench.registry import board_units
from equivbench.report.text import loss_in, printable
from equivbench.request import Forces
from equivbench.specs import CONTESTANTS, Precision

if TYPE_CHECKING:
    from equivbench.gap.efficiency import PairGap
    from equivbench.records.schema import RunRecord
    from equivbench.records.submission import Admitted
    from equivbench.report.table import Table

FigureKind = Literal["curves", "gap", "frontier", "share", "race"]
SkipInvalid = Annotated[
    bool,
    typer.Option(
        "--skip-invalid",
        help="Leave invalid records out, with a warning each; without it one ends the command "
        "with exit code 3.",
    ),
]


def _records(results: Path, skip_invalid: bool) -> list[RunRecord]:
    from equivbench.records.submission import admitted

    return admitted(results, invalid=_on_invalid(skip_invalid))


def _admit(results: Path, skip_invalid: bool) -> Admitted:
    from equivbench.records.submission import admit

    return admit(results, invalid=_on_invalid(skip_invalid))


def _on_invalid(skip: bool) -> Literal["raise", "warn"]:
    return "warn" if skip else "raise"


def gap(
    results: ResultsArgument = None,
    named: ResultsOption = None,
    as_json: Json = False,
    skip_invalid: SkipInvalid = False,
) -> None:
    """The efficiency gap of each pair: who is behind at equal budget, and how much faster it would
    have to be to tie."""
    from equivbench.gap.pairing import pair_up
    from equivbench.gap.remembered import gaps_of
    from equivbench.report.gaps import gap_table

    place = results_place(results, named)
    admitted = _admit(place, skip_invalid)
    pairing = pair_up(admitted.outlines)
    problems, gaps = pairing.problems, gaps_of(admitted, pairing)
    if not gaps:
        if not problems:
            raise FailedError(
                f"{place} has no record of an {' or '.join(CONTESTANTS)} arm; "
                "`equivbench run` writes both"
            )
        raise next((each for each in problems if isinstance(each, IncomparableError)), problems[0])
    if as_json:
        print_json([each.to_json() for each in gaps])
    else:
        print_table(gap_table(gaps))
        print_paragraphs(gaps)
    for problem in problems:
        message("left out", str(problem))
    lost = [each for each in gaps if max(each.diverged.values()) == each.n_seeds]
    if lost:
        names = ", ".join(f"{each.task}/{each.pair}" for each in lost)
        raise FailedError(
            f"every seed of an arm diverged in {names}; its recipe needs another learning rate "
            "(`equivbench tune`)"
        )


def print_paragraphs(gaps: Sequence[PairGap]) -> None:
    """Print a paragraph on each gap."""
    from equivbench.report.gaps import paragraphs

    for line in paragraphs(gaps):
        print_text(line)


def frontier(
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PAIR]...",
            help="Only these pairs, such as forcefield/vector.",
            autocompletion=completer("pairs"),
        ),
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", help="A results folder or a record file.")
    ] = RESULTS,
    as_json: Json = False,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Loss against the budget over the rungs and sizes of each arm: exponents, floors, and where
    the arms cross.

    It reads records of a budget in seconds. `equivbench run PAIR --budget 60s --rungs 5` makes
    those of the declared size; `equivbench analyze sweep PAIR --over size --values 0.5,1,2 --rungs
    5` those of several, which `--results sweeps` reads.
    """
    from equivbench.gap.frontier import frontiers
    from equivbench.gap.pairing import pair_up
    from equivbench.registry import PAIRS
    from equivbench.report.frontier import crossing_sentences, frontier_table

    for name in pairs or ():
        if name not in PAIRS.entries() and Path(name).exists():
            raise UsageError(
                f"{printable(name)} is no pair but a place on disk; name a results folder with "
                f"--results {printable(name)}"
            )
    chosen = {PAIRS.get(name).key for name in pairs or ()}
    records = [
        record
        for record in _records(results, skip_invalid)
        if not chosen or f"{record.task}/{record.pair}" in chosen
    ]
    answer = frontiers(records)
    if not answer.found:
        for problem in pair_up(records).problems:
            if isinstance(problem, IncomparableError):
                raise problem
    if as_json:
        print_json([each.to_json() for each in answer.found])
    elif answer.found:
        print_table(frontier_table(answer.found))
        for sentence in crossing_sentences(answer.found):
            print_text(sentence)
    for text in answer.left_out:
        message("left out", text)
    if answer.found:
        return
    if answer.left_out:
        raise FailedError(f"nothing in {results} makes a frontier, for the reasons given above")
    raise FailedError(
        f"{results} has no pair whose two arms have records with rungs"
        f"{' among those named' if chosen else ''}; `equivbench run PAIR --budget 60s` writes both"
    )


def baselines(
    results: ResultsArgument = None,
    named: ResultsOption = None,
    as_json: Json = False,
    weights: Annotated[
        ResultWeights,
        typer.Option(
            help="Whose losses and shares are matched: those of the annealed weights at the rungs, "
            "or along the trace of the raw weights or of their average."
        ),
    ] = "annealed",
    skip_invalid: SkipInvalid = False,
) -> None:
    """Each arm against predictors that need no training, and the arms' shares where their losses
    agree.

    A share changes as a model learns, so that it compares with the other arm's only at the same
    loss. "Not reached" is said where an arm did not come down to a loss; nothing is extrapolated.
    """
    from equivbench.gap.matched import matched_shares
    from equivbench.report.arms import ends_table, levels_table

    place = results_place(results, named)
    found = matched_shares(_records(place, skip_invalid), weights)
    if not found:
        raise FailedError(f"{place} has no finished run; `equivbench run` makes some")
    if as_json:
        print_json(found)
        return
    units = board_units()
    for each in found:
        unit = units.get(each.setting.task)
        print_table(ends_table(each, each.setting.text + (f", {loss_in(unit)}" if unit else "")))
        if each.levels:
            print_table(levels_table(each.levels, f"{each.weights} weights"))
        for note in each.notes:
            message("note", f"{each.setting.text}: {note}")
        typer.echo()


leaderboard = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@leaderboard.callback()
def _leaderboard() -> None:
    """The board made from records."""


@leaderboard.command()
def export(
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="md (the default), csv, json, html or latex.",
            autocompletion=completer(("md", "csv", "json", "html", "latex")),
        ),
    ] = None,
    results: Annotated[
        Path,
        typer.Option("--results", help="Results folder, one record, or one pretrained.jsonl."),
    ] = RESULTS,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; stdout if left out.")
    ] = None,
    json: ShortJson = False,
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder",
            help="Only the times to target losses, commit by commit, in any format but html, whose "
            "page has them beside the boards.",
        ),
    ] = False,
    race: Annotated[
        bool,
        typer.Option(
            "--race",
            help="Only the races: a row an arm of all pairs of a task, with what training and "
            "inference cost and what averaging over rotations would buy; in any format but html, "
            "whose page has those of three arms and more.",
        ),
    ] = False,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Say who leads, and rank the arms of each setting: same task, data, preset, hardware, budget
    and rules.

    md and html show all that the results hold, the answer first. In latex races of three arms and
    more, ladders and pretrained networks stand below the boards; in csv and json, which hold rows
    of one kind, the last two where there are no boards.
    """
    from equivbench.records.files import write_atomically
    from equivbench.report.formats import (
        BESIDE,
        DOCUMENT,
        PAGE,
        TABLES,
        check_format,
        tables_to_text,
        to_text,
    )

    name = check_format(chosen_format(format, json, DOCUMENT))
    if out is not None:
        _check_no_input(out, results)
    if ladder or race:
        option = "--race" if race else "--ladder"
        if ladder and race:
            raise UsageError("--ladder and --race are tables of two kinds; ask for one of them")
        if name not in TABLES:
            raise UsageError(f"{option} is in {', '.join(TABLES)}; the {name} page has it anyway")
        tables = _races(results, name, skip_invalid) if race else [_ladder(results, skip_invalid)]
        text = tables_to_text(name, tables)
    elif name in (DOCUMENT, PAGE):
        from equivbench.report.publication import publish

        publication = publish(results, units=board_units(), invalid=_on_invalid(skip_invalid))
        if name == PAGE:
            from equivbench.report.html.page import to_html

            text = to_html(publication)
        else:
            from equivbench.report.sections import to_markdown_page

            text = to_markdown_page(publication)
    else:
        from equivbench.records.submission import admit
        from equivbench.report.board import boards_of, rank_runs
        from equivbench.report.ladder import ladder_table
        from equivbench.report.pretrained import pretrained_table
        from equivbench.report.publication import MOST_CURVES, load_ladder, load_pretrained
        from equivbench.report.race import race_tables, races_of
        from equivbench.report.sections import LADDER_TITLE, PRETRAINED_TITLE

        invalid = _on_invalid(skip_invalid)
        entries = load_ladder(results, invalid=invalid)
        lines = load_pretrained(results, invalid=invalid)
        beside = [ladder_table(entries, LADDER_TITLE)] if entries else []
        beside += [pretrained_table(lines, PRETRAINED_TITLE)] if lines else []
        found = admit(results, invalid=invalid, needed=not beside)
        # Where all were refused there is nothing to rank either.
        ranked = rank_runs(found.outlines) if found.outlines or not beside else {}
        boards = boards_of(ranked, board_units())
        if name in BESIDE and sum(map(len, ranked.values())) <= MOST_CURVES:
            races = races_of(ranked, found.outlines, board_units(), found.record)
            beside = [*race_tables(races), *beside]
        text = to_text(name, boards, beside)
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomically(out, text.encode())


def _check_no_input(out: Path, results: Path) -> None:
    """Raise ``UsageError`` where ``out`` is one of the files that ``results`` are read from."""
    from equivbench.records.store import record_files

    if not out.exists():
        return
    with contextlib.suppress(FailedError):
        for file in record_files(results, endings=(".json", ".jsonl")):
            if file.exists() and file.samefile(out):
                raise UsageError(f"--out {out} is one of the files that are read; name another")


def _ladder(results: Path, skip_invalid: bool) -> Table:
    """The ladders below ``results``; raises ``FailedError`` where there are none."""
    from equivbench.report.ladder import ladder_table
    from equivbench.report.publication import load_ladder
    from equivbench.report.sections import LADDER_TITLE

    entries = load_ladder(results, invalid=_on_invalid(skip_invalid))
    if not entries:
        raise FailedError(f"{results} has no ladder; `equivbench ladder PAIR` begins one")
    return ladder_table(entries, LADDER_TITLE)


def _races(results: Path, name: str, skip_invalid: bool) -> list[Table]:
    """The races of the records below ``results``, a table each or, in a format of rows, one sheet;
    raises ``FailedError`` where no setting has two arms."""
    from equivbench.records.submission import admit
    from equivbench.report.board import rank_runs
    from equivbench.report.formats import OF_ROWS
    from equivbench.report.race import race_sheet, race_tables, races_of

    found = admit(results, invalid=_on_invalid(skip_invalid))
    races = races_of(
        rank_runs(found.outlines), found.outlines, board_units(), found.record, fewest=2
    )
    if not races:
        raise FailedError(
            f"{results} has no setting in which two arms raced; `equivbench run` trains both of a "
            "pair, with --arm further ones"
        )
    return [race_sheet(races)] if name in OF_ROWS else race_tables(races)


def plot(
    kind: Annotated[
        FigureKind,
        typer.Argument(
            metavar="KIND",
            help="curves: loss and share against the budget; share: the share alone; gap: where "
            "one arm passes the other's final loss; frontier: loss against the budget over rungs "
            "and sizes; race: loss of all arms of a task against training and inference cost.",
        ),
    ],
    results: ResultsArgument = None,
    named: ResultsOption = None,
    out: Annotated[Path, typer.Option("--out", help="File to draw into (svg, png or pdf).")] = Path(
        "figure.svg"
    ),
    task: Annotated[
        str | None,
        typer.Option(
            help="Only this task, such as forcefield: for a race.",
            autocompletion=completer("tasks"),
        ),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(
            help="Only this pair, such as forcefield/vector.", autocompletion=completer("pairs")
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Only this preset.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Only this data set.", autocompletion=completer("datasets")),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Only this budget, such as 60s.")] = None,
    forces: Annotated[
        Forces | None, typer.Option(help="Only runs that predict forces this way.")
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Only runs that computed in this precision.")
    ] = None,
    machine: Annotated[str | None, typer.Option(help="Only this machine key.")] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            help="Only runs on this kernel backend; of a plain arm that has none on it, all.",
            autocompletion=completer("kernels"),
        ),
    ] = None,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Draw a figure of one pair, or a race of all arms of a task, under one setting, from its
    records.

    Runs of a sweep are left out where the folder also has runs without, but for a frontier. Needs
    matplotlib, which comes with `pip install 'equivbench[plots]'`.
    """
    from equivbench.report.plot import draw

    draw(
        kind,
        results_place(results, named),
        out=out,
        task=task,
        pair=pair,
        preset=preset,
        dataset=dataset,
        budget=budget,
        forces=forces,
        precision=precision,
        machine=machine,
        kernels=kernels,
        skip_invalid=skip_invalid,
    )
    message("note", f"drew {out}")
