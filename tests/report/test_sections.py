"""The board in sections: the answer first, sweeps and short budgets last, in Markdown and on the
page alike."""

from __future__ import annotations

import re
from typing import Any

import pytest
from factories import make_record, make_run
from hypothesis import given
from hypothesis import strategies as st
from ladder_lines import ladder_entry
from pretrained_lines import measurement
from toy_samples import kernel_samples

from equivbench.records.schema import RunRecord
from equivbench.report.answer import answer_table, telling_gaps
from equivbench.report.appendix import boards_apart, gaps_apart
from equivbench.report.board import build_boards
from equivbench.report.html.page import to_html
from equivbench.report.publication import Publication, make_publication
from equivbench.report.render import row_texts
from equivbench.report.sections import sections, to_markdown_page
from equivbench.specs import AUGMENTED, CONTESTANTS, EQUIVARIANT

STEPS = [10, 30, 100, 300, 1000]
ORDER = [
    "The answer so far",
    "Loss against budget",
    "Kernels",
    "Pretrained networks",
    "Times to target losses",
    "The efficiency gap",
    "All arms",
    "Appendix: sweeps and short budgets",
]
IDS = ["answer", "frontier", "kernels", "pretrained", "ladder", "gaps", "task-1", "appendix"]


def both(ratio: float = 0.5, seeds: int = 3, limit: float = 100.0, **more: Any) -> list[RunRecord]:
    """Both arms, the equivariant one at ``ratio`` times the other's loss."""
    found = []
    for seed in range(seeds):
        for arm, level in (("equivariant", ratio * (1 + 0.01 * seed)), ("augmented", 1.0)):
            run = make_run(
                arm,
                lambda step, k=level: 5 * k * step**-0.5,
                STEPS,
                tau=limit / STEPS[-1],
                seed=seed,
                limit=limit,
                **more,
            )
            found.append(run)
    return found


@pytest.fixture(scope="module")
def publication() -> Publication:
    """Something of everything."""
    records = [
        *both(),
        *both(limit=10.0),
        *both(variant={"sweep": "data", "value": "0.5"}),
    ]
    samples = [kernel_samples([1.0], backend=name) for name in ("e3nn", "fused", "other")]
    return make_publication(
        records,
        samples,
        units={"toy": "eV"},
        pretrained=[measurement()],
        ladder=[ladder_entry("a" * 40)[0]],
    )


def test_the_sections_are_in_order_in_both_formats(publication: Publication) -> None:
    assert [each.title for each in sections(publication)] == ORDER
    assert re.findall(r"^## (.*)$", to_markdown_page(publication), flags=re.MULTILINE) == ORDER
    page = to_html(publication)
    found = [each for each in re.findall(r'<section id="([\w-]+)"', page) if each in IDS]
    assert found == IDS


def test_what_there_is_nothing_of_has_no_section() -> None:
    alone = make_publication([make_record()])
    assert [each.title for each in sections(alone)] == ["All arms"]


def test_the_page_opens_with_who_leads_by_how_much_and_how_sure() -> None:
    records = [*both(0.5, pair="oak"), *both(2.0, pair="pine"), *both(0.5, seeds=1, pair="yew")]
    publication = make_publication(records)
    gaps = telling_gaps([one.gap for one in publication.gaps])
    rows = row_texts(answer_table(gaps))
    assert [row["leads"] for row in rows] == ["equivariant", "augmented", "no verdict"]
    assert rows[0]["loss_ratio"].startswith("0.50")
    assert rows[0]["slowdown_margin"].startswith("3.9")  # the loss falls as steps^-1/2
    assert rows[2]["slowdown_margin"] == "no verdict"
    assert "after Holm's correction over 2 comparisons" in rows[0]["sure"]
    assert rows[2]["sure"] == "1 seed; a verdict takes 3"
    assert {row["budget"] for row in rows} == {"100s"}
    text = to_markdown_page(publication)
    assert text.startswith("## The answer so far\n\ntoy: The equivariant arm leads in oak (")
    page = to_html(publication)
    opening = page[page.index('id="answer"') : page.index("</section>", page.index('id="answer"'))]
    assert re.findall(r'<span class="badge (\w+)">([\w ]+)</span>', opening) == [
        ("equivariant", "equivariant"),
        ("augmented", "augmented"),
        ("plain", "no verdict"),
    ]
    assert "a verdict takes 3" in opening


def beside(kernels: str, contest: str, **more: Any) -> list[RunRecord]:
    """Both arms in turns, the equivariant one on ``kernels``; the other has no operations that a
    backend could do."""
    named = {"contest": contest, "run_id": contest, **more}
    return [
        *(each for each in both(model={"kernels": kernels}, **named) if each.arm == EQUIVARIANT),
        *(each for each in both(**named) if each.arm == AUGMENTED),
    ]


def test_a_backend_that_one_contestant_was_run_on_alone_is_no_contest_but_a_training_step() -> None:
    alone = [each for each in beside("e3nn", "alone") if each.arm == EQUIVARIANT]
    records = [*both(contest="first"), *beside("fused", "second"), *alone]
    publication = make_publication(records)
    assert len(publication.gaps) == 3, "its losses are still shown beside the other arm's"
    found = {each.title: each for each in sections(publication)}
    (answer,) = found["The answer so far"].tables
    usual = publication.gaps[0].gap.kernels[AUGMENTED]
    assert [row["kernels"] for row in row_texts(answer)] == [usual, f"fused / {usual}"]
    assert "no verdict" not in " ".join(found["The answer so far"].sentences)
    page = to_html(publication)
    opening = page[page.index('id="answer"') : page.index("</section>", page.index('id="answer"'))]
    assert "fused" in opening
    assert "e3nn" not in opening
    steps = row_texts(found["Kernels"].tables[0])
    assert [row["e3nn"] for row in steps if row["arm"] == EQUIVARIANT] == ["100 ms"]


@pytest.mark.parametrize(
    ("kernels", "others"),
    [
        ("e3nn", beside("e3nn", "shorter", limit=10.0)),
        ("default", []),
    ],
)
def test_arms_that_took_no_turns_are_said_where_both_were_run_on_the_backend(
    kernels: str, others: list[RunRecord]
) -> None:
    """In a contest of another budget, or both on the backend of that name, days apart."""
    apart = [
        each for arm in CONTESTANTS for each in beside(kernels, f"alone {arm}") if each.arm == arm
    ]
    gaps = [one.gap for one in make_publication([*apart, *others]).gaps]
    (row,) = row_texts(answer_table(telling_gaps(gaps)))
    assert (row["leads"], row["budget"]) == ("no verdict", "100s")
    assert "did not take turns" in row["sure"]


def test_sweeps_and_short_budgets_stand_in_the_appendix(publication: Publication) -> None:
    first, rest = boards_apart(publication.boards)
    assert [board.setting.budget for board in first] == ["100 seconds"]
    assert {(board.setting.budget, board.setting.variant != "") for board in rest} == {
        ("10 seconds", False),
        ("100 seconds", True),
    }
    gaps, further = gaps_apart(publication.gaps, lambda each: each.gap)
    assert [one.gap.budget["limit"] for one in gaps] == [100.0]
    assert len(further) == 2
    page = to_html(publication)
    before, _, appendix = page.partition('<section id="appendix"')
    assert before.count('<tbody class="row gap"') == 1
    assert appendix.count('<tbody class="row gap"') == 2
    assert appendix.count('<article class="card board"') == 2


def test_what_the_answer_rests_on_is_never_in_the_appendix() -> None:
    fused = {"model": {"kernels": "fused"}}
    records = [
        *both(),
        *both(limit=10.0),
        *both(limit=20.0, **fused),
        *both(limit=5.0, **fused),
        *both(limit=50.0, environment={"machine_key": "other"}),
        *both(limit=30.0, dataset={"name": "other"}),
    ]
    gaps = [one.gap for one in make_publication(records).gaps]
    first, rest = gaps_apart(gaps, lambda gap: gap)
    assert sorted(gap.budget["limit"] for gap in first) == [20.0, 30.0, 50.0, 100.0]
    assert sorted(gap.budget["limit"] for gap in rest) == [5.0, 10.0]
    telling = telling_gaps(gaps)
    assert [gap.budget["limit"] for gap in telling] == [100.0, 20.0]
    assert all(gap in first for gap in telling)


budgets = st.sampled_from(["10 seconds", "60 seconds", "100 steps"])


@given(data=st.data())
def test_every_board_is_in_one_part_and_each_pair_has_its_largest_budget_in_the_first(
    data: st.DataObject,
) -> None:
    records = [
        make_record(
            pair=data.draw(st.sampled_from("ab")),
            environment={"machine_key": data.draw(st.sampled_from(["m", "n"]))},
            budget=dict(zip(("limit", "kind"), data.draw(budgets).split(), strict=True))
            | {"limit": float(data.draw(st.sampled_from(["10", "60"])))},
            variant=data.draw(st.sampled_from([{}, {"sweep": "size", "value": "2"}])),
            seed=seed,
        )
        for seed in range(data.draw(st.integers(1, 6)))
    ]
    boards = build_boards(records)
    first, rest = boards_apart(boards)
    assert sorted([*first, *rest], key=lambda board: board.setting) == boards
    assert not [board for board in first if "sweep" in board.setting.variant]
    for place in {(r.pair, r.environment.machine_key) for r in records if not r.variant}:
        own = [
            (r.budget.kind == "seconds", r.budget.limit)
            for r in records
            if not r.variant and (r.pair, r.environment.machine_key) == place
        ]
        seconds, limit = max(own)
        kind = "seconds" if seconds else "steps"
        assert any(
            board.setting.budget == f"{limit:.12g} {kind}"
            and board.setting.machine_key == place[1]
            and place[0] in {row.pair for row in board.rows}
            for board in first
        )


def test_the_lowest_loss_is_marked_and_no_other() -> None:
    page = to_html(make_publication(both()))
    marked = re.findall(
        r'<td class="number best" data-column="total"[^>]*><span[^>]*>([^<]*)', page
    )
    assert len(marked) == 1
    alone = to_html(make_publication([make_record()]))
    assert 'class="number best"' not in alone, "one arm alone is the lowest of nothing"


def test_frontiers_are_shown_with_their_figure(publication: Publication) -> None:
    page = to_html(publication)
    start = page.index('<section id="frontier"')
    section = page[start : page.index("</section>", start)]
    # Two budgets: a frontier each, with the dots and the two parts of the law of both arms.
    assert section.count("<article") == len(publication.frontiers) == 2
    assert section.count('<svg class="chart"') == 2
    assert section.count('<g class="series"') == 2 * 2 * 3
    assert "the fitted laws do not cross" in section
    assert "exponent" in section
    # The law of this loss has the exponent of its making.
    assert "0.50" in section
