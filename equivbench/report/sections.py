"""The board in sections, in the order in which a reader meets them: the answer first, then what
else there is to compare, then the runs behind it, sweeps and short budgets last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from equivbench.report.answer import answer_table, answers, telling_gaps
from equivbench.report.appendix import boards_apart, gaps_apart
from equivbench.report.formats import board_table
from equivbench.report.frontier import crossing_sentences, frontier_table
from equivbench.report.gaps import gap_table
from equivbench.report.kernel_axis import operations_table, steps_table
from equivbench.report.ladder import ladder_table
from equivbench.report.pretrained import pretrained_table
from equivbench.report.publication import Publication
from equivbench.report.race import race_tables
from equivbench.report.render import markdown_text, to_markdown
from equivbench.report.table import Table

LADDER_TITLE = "Times to target losses"
PRETRAINED_TITLE = "Pretrained networks"
RACE_TITLE = "The race"
STEPS_TITLE = "Training steps by kernel backend"
OPERATIONS_TITLE = "Operations by kernel backend"


@dataclass(frozen=True)
class BoardSection:
    """A part of the board: sentences under a heading, and tables below them."""

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()


def sections(publication: Publication) -> list[BoardSection]:
    """The sections of ``publication``; what there is nothing of has none."""
    telling = telling_gaps([one.gap for one in publication.gaps])
    gaps, further_gaps = gaps_apart([one.gap for one in publication.gaps], lambda gap: gap)
    boards, further_boards = boards_apart(publication.boards)
    found = [
        BoardSection(
            "The answer so far",
            [f"{task}: {sentence}" for task, sentence in answers(telling).items()],
            [answer_table(telling)] if telling else [],
        ),
        BoardSection(RACE_TITLE, (), race_tables(publication.races)),
        BoardSection(
            "Loss against budget",
            crossing_sentences(publication.frontiers),
            [frontier_table(publication.frontiers)] if publication.frontiers else [],
        ),
        *(BoardSection(each.title, (), [replace(each, title="")]) for each in publication.studied),
        BoardSection("Kernels", (), kernel_tables(publication)),
        BoardSection(
            PRETRAINED_TITLE,
            (),
            [pretrained_table(publication.pretrained)] if publication.pretrained else [],
        ),
        BoardSection(
            LADDER_TITLE, (), [ladder_table(publication.ladder)] if publication.ladder else []
        ),
        BoardSection("The efficiency gap", (), [gap_table(gaps)] if gaps else []),
        BoardSection("All arms", (), list(map(board_table, boards))),
        BoardSection(
            "Appendix: sweeps and short budgets",
            (),
            [
                *([gap_table(further_gaps, "Efficiency gaps")] if further_gaps else []),
                *map(board_table, further_boards),
            ],
        ),
    ]
    return [each for each in found if each.sentences or each.tables]


def kernel_tables(publication: Publication) -> list[Table]:
    """The training steps and the operations of ``publication`` on one backend beside the others,
    those of the two tables that have a row."""
    tables = [
        steps_table(publication.steps, STEPS_TITLE),
        operations_table(publication.kernels, OPERATIONS_TITLE),
    ]
    return [each for each in tables if each.rows]


def to_markdown_page(publication: Publication) -> str:
    """``publication`` as one Markdown document: a heading of the second level for each section,
    one of the third for each table that has a title."""
    blocks = []
    for section in sections(publication):
        blocks.append(f"## {markdown_text(section.title)}\n")
        blocks += [f"{markdown_text(sentence)}\n" for sentence in section.sentences]
        blocks += map(to_markdown, section.tables)
    return "\n".join(blocks)
