"""The verdicts on the claims as a table of the board, found there by entry point."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from claim_evidence import make_shared
from factories import make_record, make_run

from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record
from equivbench.report.publication import publish
from equivbench.report.render import row_texts
from equivbench.report.sections import sections
from equivbench.report.study_tables import study_tables
from equivbench.studies.claims.board import TITLE, claims_board_table, claims_on_board
from equivbench.studies.claims.evidence import gather_evidence
from equivbench.studies.claims.findings import VERDICTS
from equivbench.studies.claims.statements import CLAIMS, TASKS
from equivbench.studies.claims.verdicts import judge

MADE_UP = "made-up"
"""No pair of equivbench's own: what is stored of one must be what it declares."""


def contest(**more: object) -> list[RunRecord]:
    return [
        make_run(
            arm,
            lambda step, k=level: 5 * k * step**-0.5,
            (10, 30, 100, 300, 1000),
            tau=0.1,
            seed=seed,
            **{"task": "forcefield", "pair": MADE_UP, **more},
        )
        for seed in range(3)
        for arm, level in (("equivariant", 0.5 + 0.01 * seed), ("augmented", 1.0 + 0.01 * seed))
    ]


def test_claims_with_a_verdict_have_rows_and_the_others_are_named() -> None:
    gpu = {"machine_key": "toy-gpu", "device": "Toy GPU"}
    table = claims_board_table(judge(gather_evidence(contest(environment=gpu))))
    rows = row_texts(table)
    assert rows
    for row in rows:
        assert {row["annealed"], row["raw"], row["ema"]} - {"not measured"}
        assert {row["annealed"], row["raw"], row["ema"]} <= set(VERDICTS)
    shown = {row["claim"] for row in rows}
    assert "C5" in shown
    named = table.notes[0].partition(":")[0]
    assert all((each.id in shown) != (each.id in named) for each in CLAIMS)


def test_a_board_has_them_where_the_records_are_evidence(tmp_path: Path) -> None:
    for number, (task, seed) in enumerate(product(TASKS, range(3))):
        # No two runs have one curve.
        record = make_shared(
            task=task,
            seed=seed,
            pair=MADE_UP,
            loss=lambda place, k=1 + number / 1000: k * (8.0 - 7.0 * place),
        )
        write_record(record, tmp_path)
    titles = [each.title for each in sections(publish(tmp_path))]
    assert titles.index(TITLE) < titles.index("All arms")
    assert [each.title for each in study_tables(tmp_path)] == [TITLE]
    (first, *_) = row_texts(study_tables(tmp_path)[0])
    assert (first["claim"], first["annealed"]) == ("C1", "held")


def test_a_board_of_other_tasks_has_none(tmp_path: Path) -> None:
    for record in contest(task="toy"):
        write_record(record, tmp_path)
    assert TITLE not in [each.title for each in sections(publish(tmp_path))]


def test_a_file_is_no_folder_of_evidence(tmp_path: Path) -> None:
    path = write_record(make_record(), tmp_path)
    assert claims_on_board(path) is None
