"""Lines of ``ladder.jsonl``: what makes one right, what it is on its ladder, and that its numbers
follow from its log."""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_record
from ladder_lines import FIRST, SECOND, TARGET, keep_ladder, ladder_entry, ladder_log

from equivbench.errors import FailedError
from equivbench.gap.ladder import numbers_of, unusable
from equivbench.gap.ladder_file import LADDER_FILE, departures, keep_entry
from equivbench.gate.reading import read_side
from equivbench.records.ladder import LadderSide, placed, top_of
from equivbench.records.line_files import line_files
from equivbench.records.packing import pack
from equivbench.records.schema import Git
from equivbench.records.submission import review

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def test_an_entry_says_what_each_seed_took_and_what_it_gained() -> None:
    entry, log = ladder_entry(SECOND, 0.05, against=FIRST)
    # 5 n^-1/2 is a quarter after 400 steps.
    assert [each.steps for each in entry.times] == pytest.approx([400.0] * 6)
    assert [each.samples for each in entry.times] == pytest.approx([400.0 * 32] * 6)
    assert entry.times[0].seconds == pytest.approx(400 * 0.05 * 1.02)
    spread = math.prod((1.02, 0.97, 1.01, 0.99, 1.03, 0.98)) ** (1 / 6)
    assert entry.seconds == pytest.approx(20.0 * spread)
    assert entry.seconds_low < entry.seconds < entry.seconds_high
    assert entry.speed_up == pytest.approx(2.0)
    assert entry.p < 1e-6
    assert LADDER_FILE.problems_of(entry) == []
    assert [*departures(entry, log)] == []


def test_what_was_not_compared_says_why() -> None:
    entry, _ = ladder_entry(not_compared="there is no entry below")
    assert (entry.against, entry.p, entry.speed_up) == (None, None, None)
    assert entry.reasons == dict.fromkeys(("against", "p"), "there is no entry below")
    assert LADDER_FILE.problems_of(entry) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"created": "2999-01-01T00:00:00Z"}, "2999"),
        ({"change": " "}, "change is not one sentence"),
        ({"change": "a\nb"}, "change is not one sentence"),
        ({"change": "x" * 301}, "change is not one sentence"),
        ({"git": Git(commit=None, dirty=None)}, "names no commit without changes"),
        ({"git": Git(commit=SECOND, dirty=True)}, "names no commit without changes"),
        ({"against": SECOND}, "compared with itself"),
        ({"log": "../elsewhere.jsonl"}, "is no plain file name"),
        ({"target": 0.0}, "target is 0"),
        ({"p": None}, "p is null and reasons has no entry for it"),
        ({"task": "forcefield", "pair": "vector"}, "the pair declares 0.088246"),
        ({"seconds": 1e300}, "beyond"),
    ],
)
def test_each_rule_finds_what_breaks_it(changed: dict[str, Any], says: str) -> None:
    entry, _ = ladder_entry(SECOND, 0.05, against=FIRST)
    problems = LADDER_FILE.problems_of(msgspec.structs.replace(entry, **changed))
    assert any(says in each for each in problems), problems


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"seconds": 1.0}, "seconds does not follow from the log"),
        ({"p": 0.5}, "p does not follow from the log"),
        ({"times": []}, "times does not follow from the log"),
        ({"target": 0.3}, "seconds does not follow from the log"),
        ({"against": None}, "or of a commit with changes"),
        ({"against_kernels": "fused"}, "has the seeds"),
        ({"kernels": "fused"}, "of bbbbbbbbbbbb on fused and"),
        ({"log_sha256": "0" * 64}, "has another SHA-256"),
        ({"arm": "augmented"}, "another ladder's"),
    ],
)
def test_numbers_that_do_not_follow_from_the_log_are_found(
    changed: dict[str, Any], says: str
) -> None:
    entry, log = ladder_entry(SECOND, 0.05, against=FIRST)
    found = [*departures(msgspec.structs.replace(entry, **changed), log)]
    assert any(says in each for each in found), found


def test_a_log_must_have_every_seed_of_both_commits_once() -> None:
    own, other = ladder_log(SECOND, 0.05), ladder_log(FIRST, 0.1)
    for runs, says in (
        ([*own, *other[1:]], "has the seeds"),
        ([*own, own[0], *other], "seed 0 of b+ twice"),
        ([msgspec.structs.replace(own[0], points=[]), *own[1:], *other], "no curve of seed 0"),
        (other, "has the seeds"),
    ):
        with pytest.raises(FailedError, match=says):
            numbers_of(runs, LadderSide(SECOND, "torch"), LadderSide(FIRST, "torch"), TARGET)
    with pytest.raises(FailedError, match="no run of"):
        numbers_of(other, LadderSide(SECOND, "torch"), None, TARGET)


def test_a_backend_is_a_rung_of_its_own() -> None:
    """One commit on two backends is compared as two commits are, and each is an entry."""
    first, _ = ladder_entry()
    second, log = ladder_entry(FIRST, 0.05, kernels="fused", against=FIRST, day=2)
    assert second.speed_up == pytest.approx(2.0)
    assert [*LADDER_FILE.problems_of(second), *departures(second, log)] == []
    assert first.identity != second.identity
    third, _ = ladder_entry(SECOND, 0.04, against=FIRST, day=3)
    (ladder,) = placed([first, second, third])
    # The third was run beside that commit on another backend than the entry below has.
    assert [each.placing for each in ladder] == ["first", "faster", "beside"]
    changed = msgspec.structs.replace(second, kernels="torch")
    assert any("compared with itself" in each for each in LADDER_FILE.problems_of(changed))


def test_a_run_that_did_not_have_its_machine_is_no_evidence() -> None:
    runs = ladder_log(FIRST, 0.1)
    share = msgspec.structs.replace(runs[2].machine_share, steal=0.5)
    runs[2] = msgspec.structs.replace(runs[2], machine_share=share)
    entry, _ = ladder_entry()
    log = b"\n".join(map(msgspec.json.encode, runs))
    changed = msgspec.structs.replace(entry, log_sha256=hashlib.sha256(log).hexdigest())
    (found,) = departures(changed, log)
    assert found.startswith("seed 2 of its log: the machine was busy (a hypervisor gave 50%")


def test_what_an_entry_is_on_its_ladder(tmp_path: Path) -> None:
    entries = keep_ladder(tmp_path)
    beside, _ = ladder_entry("d" * 40, 0.02, against=FIRST, day=4)
    few, _ = ladder_entry("e" * 40, 0.02, against=SECOND, seeds=5, day=5)
    late, _ = ladder_entry("1" * 40, 0.02, against=SECOND, target=0.01, day=6)
    alone, _ = ladder_entry("2" * 40, 0.02, not_compared="it cannot be run", day=7)
    (other, ladder) = placed([alone, *entries[::-1], beside, few, late])
    assert [each.placing for each in ladder] == [
        *("first", "faster", "not faster", "beside", "few seeds", "not compared")
    ]
    assert top_of(ladder[:5]).git.commit == SECOND
    assert top_of(ladder) is alone
    # Another target is another ladder; no run of this one came down to it.
    assert [each.placing for each in other] == ["not reached"]
    assert top_of(other) is None


def test_a_folder_is_validated_with_its_logs(tmp_path: Path) -> None:
    keep_ladder(tmp_path)
    assert [report.problems for report in review([tmp_path])] == [[]] * 4
    assert line_files()["ladder.jsonl"] is LADDER_FILE
    logs = sorted((tmp_path / "toy-cpu-2t" / "ladder").iterdir())
    text = logs[0].read_text(encoding="utf-8")
    logs[0].write_text(text.replace('"step":25', '"step":26'), encoding="utf-8")
    logs[1].unlink()
    (report,) = [each for each in review([tmp_path]) if each.path.endswith("ladder.jsonl")]
    assert len(report.problems) == 2
    assert "has another SHA-256" in report.problems[0]
    assert "cannot read" in report.problems[1]


def test_a_copy_of_an_entry_is_refused(tmp_path: Path) -> None:
    entry, log = ladder_entry()
    keep_entry(entry, log, tmp_path)
    keep_entry(msgspec.structs.replace(entry, created="2026-02-01T00:00:00Z"), log, tmp_path)
    found = [each for report in review([tmp_path]) for each in report.problems]
    assert found == ["line 2: it is a copy of line 1"]


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    entry, log = ladder_entry()
    file = keep_entry(entry, log, tmp_path)
    file.write_text(file.read_text(encoding="utf-8").replace('"p":', '"q":1,"p":'), "utf-8")
    (report, _) = review([tmp_path])[::-1]
    assert "q" in report.problems[0]


def test_a_log_is_no_measurement_for_the_gate_and_goes_into_a_submission(tmp_path: Path) -> None:
    results = tmp_path / "results"
    keep_ladder(results)
    assert [each.reason for each in read_side(results).unreadable if "ladder" in each.source] == []
    pack([results], tmp_path / "submission.zip")
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        names = archive.namelist()
    assert "toy-cpu-2t/ladder.jsonl" in names
    assert sum(name.startswith("toy-cpu-2t/ladder/") for name in names) == 3


def test_runs_that_were_disturbed_or_did_not_end_time_nothing() -> None:
    assert unusable(make_record()) is None
    assert unusable(make_record(status="diverged", reason="NaN")) == "it is diverged: NaN"
    busy = make_record(machine_share={"steal": 0.5})
    assert "hypervisor" in unusable(busy)
