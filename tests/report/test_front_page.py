"""Every number of the first pages and of the board is that of the records that the project
ships."""

from pathlib import Path

import pytest
from blocks import replaced
from factories import make_run
from front_page import FIGURE, PAGES, RACE_FIGURE, shown_gaps, tuning_sentence, with_numbers
from measurements_page import PAGE as MEASUREMENTS
from measurements_page import with_tables

from equivbench.cli.main import main
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results
from equivbench.registry import board_units
from equivbench.report.publication import publish
from equivbench.report.sections import to_markdown_page

README = PAGES[0]
RESULTS = README.parent / "results"
DOCS = README.parent / "docs"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_numbers_of_the_first_pages_are_those_of_the_records(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page == with_numbers(page, load_results(RESULTS)), "python tools/front_page.py"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
def test_the_tables_of_what_was_measured_are_those_of_the_records() -> None:
    page = MEASUREMENTS.read_text(encoding="utf-8")
    assert page == with_tables(page, RESULTS), "python tools/measurements_page.py"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
def test_the_board_beside_the_records_is_theirs() -> None:
    made = to_markdown_page(publish(RESULTS, units=board_units()))
    assert (RESULTS / "board.md").read_text(encoding="utf-8") == made, (
        "equivbench leaderboard export --results results --format md --out results/board.md"
    )


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
def test_the_page_of_the_claims_is_that_of_the_records(tmp_path: Path) -> None:
    made = tmp_path / "claims.md"
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "--report-only", "--out", str(RESULTS), "--page", str(made)])
    assert not end.value.code
    page = README.parent / "docs" / "claims.md"
    assert page.read_text(encoding="utf-8") == made.read_text(encoding="utf-8"), (
        "equivbench reproduce --report-only --page docs/claims.md"
    )


STEPS = (10, 100, 1000)


def tuned(task: str, pair: str, **tuned_at: str | None) -> list[RunRecord]:
    """Both arms of a pair under 100 s, each tuned at what ``tuned_at`` says."""
    return [
        make_run(
            arm,
            lambda step, arm=arm: len(arm) * step**-0.5,
            STEPS,
            tau=0.1,
            task=task,
            pair=pair,
            recipe={"tuned_at": text},
        )
        for arm, text in tuned_at.items()
    ]


def test_a_tuning_below_the_budget_is_said_beside_the_answer() -> None:
    short = tuned("forcefield", "vector", equivariant="60s", augmented="50s")
    enough = tuned("flow", "frames", equivariant="2min", augmented="100s")
    never = tuned("voxel", "octahedral", equivariant=None, augmented="60s")

    def said(records: list[RunRecord]) -> str:
        return tuning_sentence(shown_gaps(records), records)

    assert said(short) == " Their recipes were tuned at 50 s only."
    assert said(enough) == ""
    assert said([*short, *enough]) == " The recipes of `vector` were tuned at 50 s only."
    assert said([*short, *never]).endswith(" The recipes of `octahedral` were not tuned.")
    another = tuned("forcefield", "tied-head", equivariant="100s", augmented="100s")
    assert said([*short, *another]) == " The recipes of `vector` were tuned at 50 s only."
    # A further arm of the same contest says nothing of the two.
    own = {"task": "flow", "pair": "frames"}
    further = make_run("frames", lambda step: 3 * step**-0.5, STEPS, tau=0.1, **own)
    assert said([*enough, further]) == ""


def of_seeds(pair: str, seeds: int) -> list[RunRecord]:
    """Both arms of a pair, the augmented one behind, each seed by another loss."""
    return [
        make_run(
            arm,
            lambda step, k=level * (1 + seed / 100): k * step**-0.5,
            STEPS,
            tau=0.1,
            task="forcefield",
            pair=pair,
            seed=seed,
        )
        for seed in range(seeds)
        for arm, level in (("equivariant", 1.0), ("augmented", 3.0))
    ]


def test_a_task_with_a_leader_has_further_pairs_without_a_verdict() -> None:
    def said(records: list[RunRecord]) -> str:
        return " ".join(with_numbers("<!-- answer -->\n<!-- end of answer -->\n", records).split())

    one = of_seeds("tied-head", 1)
    assert "there is no verdict for molecular forces." in said(one)
    both = said([*of_seeds("vector", 4), *one])
    assert "for molecular forces (0.33 of the other's, in 1 pair); " in both
    assert "there is no verdict for 1 further pair of molecular forces." in both


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) < 900


@pytest.mark.parametrize("figure", [FIGURE, RACE_FIGURE])
def test_the_figures_are_there_and_shown(figure: Path) -> None:
    assert figure.stat().st_size > 10_000
    shown = f"figures/{figure.name})"
    assert any(shown in page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))


@pytest.mark.parametrize(
    "page", ["none", "<!-- a -->\nopen\n", "<!-- a -->\n<!-- end of a -->\n<!-- a -->\n"]
)
def test_a_page_without_just_one_such_block_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="one block between <!-- a -->"):
        replaced(page, "a", "new\n")
