"""Records of runs on another data set than their preset's: held against that one, as far as its
content is known, and against their command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equivbench.records.look import Look, look_at

Plain = dict[str, Any]
RESULTS = Path(__file__).parents[2] / "results"
pytestmark = pytest.mark.skipif(
    not RESULTS.is_dir(), reason="the records are no part of a source archive"
)


def a_record() -> Plain:
    file = next(iter(sorted(RESULTS.glob("*/forcefield/vector/*/*-gfn2-20k-*.json"))))
    return json.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def look(record: Plain) -> Look:
    return look_at(json.dumps(record).encode(), "it")[0]


def on(name: str) -> Callable[[Plain], None]:
    """The same run, said everywhere to be on the data set ``name``."""

    def change(record: Plain) -> None:
        record["dataset"].update(name=name, sha256="ab" * 32)
        for where in ("command", "run_id"):
            record[where] = record[where].replace("gfn2-20k", name)

    return change


def test_a_record_on_another_data_set_is_sound_and_says_where_it_was_tuned() -> None:
    found = look(a_record())
    assert found.problems == []
    assert "tuned and matched on gfn2-small, trained on gfn2-20k" in found.remarks


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record["dataset"].update(sha256="ab" * 32), "other data"),
        (lambda record: record["dataset"]["sizes"].update(validation=5), "dataset.sizes"),
        (lambda record: record["baselines"].update(zero=28.0), "baselines.zero"),
        (lambda record: record.update(out_of_distribution={}), "out_of_distribution"),
        (on("crystals"), "no samples to train on"),
        (on("gfn2-small"), "other data"),
        (on("ca-small"), "belongs to the task flow"),
        (
            lambda record: record.update(command=record["command"].replace("gfn2-20k", "spice")),
            "dataset gfn2-20k is not what the command asks for",
        ),
    ],
)
def test_what_is_known_of_the_data_is_held_against_a_record(
    change: Callable[[Plain], None], says: str
) -> None:
    record = a_record()
    change(record)
    assert any(says in sentence for sentence in look(record).problems)


@pytest.mark.parametrize("name", ["rmd17-benzene", "somebodys-own"])
def test_data_that_nobody_here_knows_are_remarked(name: str) -> None:
    record = a_record()
    on(name)(record)
    found = look(record)
    assert found.problems == []
    assert any("so its checksum cannot be checked" in sentence for sentence in found.remarks)
