"""What a run's record and the board say of networks whose symmetry is known."""

from typing import Any

import pytest
from known_symmetries import ANSWERS, Scaled
from toy_task import Clouds, clouds
from toy_training import record_at_end, toy_trainer

from equivbench.measure.evaluator import Evaluator
from equivbench.records.consistency import CONSISTENCY
from equivbench.records.rules import broken_rules
from equivbench.report.arms import summary_tables
from equivbench.report.board import build_boards


def on(task: Clouds, **how: Any) -> tuple[Evaluator, Evaluator]:
    whole, part = (
        Evaluator(task, clouds(60, seed=1), requires={}, rotations=2, samples=samples, **how)
        for samples in (None, 10)
    )
    return whole, part


@pytest.mark.parametrize("name", ANSWERS)
def test_known_answers_in_a_record_and_on_the_board(name: str) -> None:
    answer, task = ANSWERS[name], Clouds()
    trainer = toy_trainer(
        "2steps",
        task=task,
        model=Scaled(answer.build()),
        split=clouds(20),
        evaluators=on(task, symmetry="o3"),
        symmetry="o3",
        learning_rate=1e-5,
    )
    trainer.train_slice(1e9)
    record = record_at_end(trainer)
    assert record.status == "completed"
    assert record.model.symmetry_verified is answer.o3, record.model.symmetry_reason
    said = record.model.symmetry_reason or record.reasons["model.symmetry_verified"]
    assert answer.says in said
    assert list(broken_rules(record, CONSISTENCY)) == []
    (board,) = build_boards([record])
    (table,) = summary_tables([record])
    for note in (board.rows[0].note, str(table.rows[0][-1])):
        assert (answer.says in note) is (answer.o3 is not True)
        assert ("refutes" in note) is (answer.o3 is False)


def test_a_record_says_why_a_noisy_network_has_no_floor() -> None:
    task = Clouds()
    trainer = toy_trainer(
        "2steps",
        task=task,
        model=Scaled(ANSWERS["noisy"].build()),
        split=clouds(20),
        evaluators=on(task),
    )
    trainer.train_slice(1e9)
    record = record_at_end(trainer)
    assert record.final is not None
    assert record.final.floor is None
    assert "not deterministic" in record.reasons["final.floor"]
    assert record.reasons["model.symmetry_verified"] == "no symmetry is declared"
