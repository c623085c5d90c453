"""Submissions from strangers: what is shipped holds up; every bad one is refused with its reason
and changes nothing else."""

import gc
import json
import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from good_results import RESULTS, copy_good, good_files, gradients_of, landscape_of
from spoil import MACHINE, Spoiled, from_records, place_of
from spoil_files import (
    GRADIENT_CHANGES,
    KERNEL_CHANGES,
    LANDSCAPE_CHANGES,
    ROOFLINE_CHANGES,
    from_bytes,
    from_lines,
    from_things,
)
from toy_roofline import toy_roofline

from equivbench.cli.main import main
from equivbench.errors import FailedError
from equivbench.records.files import hidden, shown
from equivbench.records.plausibility import problems
from equivbench.records.store import InvalidRecordWarning, read_record
from equivbench.records.submission import admitted, review


def submissions() -> list[Spoiled]:
    good = [json.loads(file.read_bytes()) for file in good_files()]
    record = read_record(good_files()[0])
    kernel = json.loads((RESULTS / MACHINE / "kernels.jsonl").read_text().splitlines()[0])
    newer = {**kernel, "schema_version": 2, "fraction_of_floor": None, "allocator": {}}
    newer["roofline"] = msgspec.to_builtins(toy_roofline(kernel))
    return [
        *from_records(good),
        *from_bytes(good),
        *from_things(good),
        *from_lines("kernels.jsonl", kernel, KERNEL_CHANGES),
        *from_lines("kernels.jsonl", newer, ROOFLINE_CHANGES, first=len(KERNEL_CHANGES)),
        *from_lines("gradients.jsonl", msgspec.to_builtins(gradients_of(record)), GRADIENT_CHANGES),
        *from_lines(
            "landscapes.jsonl", msgspec.to_builtins(landscape_of(record)), LANDSCAPE_CHANGES
        ),
    ]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of more than a hundred files leave something there."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_good(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[str, Path]]]:
    """A folder of good records and all bad submissions: (folder, {name: (reason, path)})."""
    out = copy_good(tmp_path_factory.mktemp("bad"))
    return out, {one.name: (one.reason, one.write(out)) for one in submissions()}


def export(
    results: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["leaderboard", "export", "--results", str(results), *options])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_what_is_shipped_holds_up() -> None:
    assert {report.path: report.problems for report in review([RESULTS]) if not report.valid} == {}


def test_what_bad_ones_are_made_from_holds_up(good: Path, tmp_path: Path) -> None:
    record = read_record(good_files()[0])
    folder = tmp_path / record.environment.machine_key
    folder.mkdir()
    (folder / "gradients.jsonl").write_bytes(msgspec.json.encode(gradients_of(record)))
    (folder / "landscapes.jsonl").write_bytes(msgspec.json.encode(landscape_of(record)))
    assert [report.problems for report in review([good, tmp_path])] == [[]] * 9


def test_every_bad_submission_is_refused_with_its_reason(
    spoiled: tuple[Path, dict[str, tuple[str, Path]]],
) -> None:
    out, bad = spoiled
    assert len(bad) >= 200, "that many different ones are asked for"
    reports = {report.path: report for report in review([out])}
    unnamed = {}
    for name, (reason, path) in bad.items():
        found = reports.pop(shown(path)).problems
        if not any(reason in problem for problem in found):
            unnamed[name] = found
    assert unnamed == {}
    assert {path: report.problems for path, report in reports.items() if not report.valid} == {}, (
        "good ones stay good"
    )


def test_the_refusals_can_be_printed(
    spoiled: tuple[Path, dict[str, tuple[str, Path]]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, bad = spoiled
    with pytest.raises(SystemExit) as stop:
        main(["results", "validate", str(out)])
    shown_text = capsys.readouterr().out
    assert stop.value.code == 3
    assert shown_text.replace("\n", "").isprintable(), (
        "nothing that drives a terminal comes through"
    )
    assert f", {len(bad)} invalid" in shown_text
    assert max(map(len, shown_text.splitlines())) < 2000


def test_bad_submissions_change_no_row(
    good: Path,
    spoiled: tuple[Path, dict[str, tuple[str, Path]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = export(good, capsys, "--format", "json")
    assert expected[0] == 0
    code, out, err = export(spoiled[0], capsys, "--format", "json", "--skip-invalid")
    assert (code, out) == (0, expected[1])
    assert "left out" in err


def test_one_bad_submission_is_enough_and_is_named(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copy_good(tmp_path / "results")
    bad = next(one for one in submissions() if one.name == "fifty times the speed").write(out)
    code, _, err = export(out, capsys)
    assert (code, str(bad) in err, "throughput x time" in err) == (3, True, True)
    with pytest.warns(InvalidRecordWarning, match="throughput x time"):
        assert admitted(out, invalid="warn") == admitted(good)


def test_what_is_named_first_is_no_copy(good: Path, tmp_path: Path) -> None:
    """A copy that bears an earlier date does not push out the record that the reviewer has."""
    forged = json.loads(good_files()[0].read_bytes())
    forged["created"] = "2026-01-01T00:00:00Z"
    forged["run_id"] = re.sub(r"\d{8}T\d{6}Z", "20260101T000000Z", forged["run_id"])
    path = place_of(forged, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(forged))
    (refused,) = (report for report in review([good, tmp_path]) if not report.valid)
    assert refused.path == str(path)
    assert "one run cannot count twice" in refused.problems[0]


@pytest.mark.parametrize("name", [".", "../results", "toy", ""])
def test_a_record_out_of_its_place_is_refused_however_the_folder_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = next(copy_good(tmp_path / "results").rglob("*.json"))
    (tmp_path / "results" / "toy").mkdir()
    file.rename(tmp_path / "results" / "toy" / "x.json")
    monkeypatch.chdir(tmp_path / "results")
    folder = Path(name) if name else tmp_path / "results"
    refused = [report for report in review([folder]) if not report.valid]
    assert [report.path for report in refused] == [
        str(folder / ("" if name == "toy" else "toy") / "x.json")
    ]
    assert "the file's place does not fit its content" in refused[0].problems[0]
    assert review([Path("toy/x.json")])[0].valid, "alone it has no place"


def things() -> Iterator[Spoiled]:
    return from_things([json.loads(good_files()[0].read_bytes())])


@pytest.mark.parametrize(
    "name", ["a pipe", "a socket", "a link to a device", "a folder", "a sparse terabyte"]
)
def test_things_named_outright_are_refused_without_waiting(name: str, tmp_path: Path) -> None:
    path = next(one for one in things() if one.name == name).write(tmp_path)
    with pytest.raises(FailedError, match=r"x\.json"):
        read_record(path)
    if not path.is_dir():
        assert not review([path])[0].valid


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everywhere")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    out = copy_good(tmp_path)
    file = next(out.rglob("*.json"))
    file.chmod(0)
    assert (
        "Permission denied"
        in next(report for report in review([out]) if report.path == str(file)).problems[0]
    )


def test_a_link_that_the_user_names_is_followed(good: Path, tmp_path: Path) -> None:
    file = next(good.rglob("*.json"))
    (tmp_path / "mine.json").symlink_to(file)
    assert review([tmp_path / "mine.json"])[0].valid


def test_hostile_file_names_are_shown_harmlessly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("\x1b[2J.json", "\u202egnp.json", os.fsdecode(b"\xff.json"), "a\nb.json"):
        (tmp_path / name).write_text("{")
    with pytest.raises(SystemExit):
        main(["results", "validate", str(tmp_path)])
    captured = capsys.readouterr()
    assert (captured.out + captured.err).replace("\n", "").isprintable()
    assert len(captured.out.splitlines()) == 5


def test_a_peak_is_held_against_each_device() -> None:
    """The same claim is possible on an H100 and impossible on a T4."""
    record = read_record(good_files()[0])
    rate = record.throughput.samples_per_second
    assert rate is not None
    for device, possible in (("NVIDIA H100 80GB HBM3", True), ("Tesla T4", False)):
        # 100 Tera-operations a second in 32 bits.
        changed = msgspec.structs.replace(
            record,
            flops_per_sample=1e14 / rate,
            environment=msgspec.structs.replace(record.environment, device=device),
        )
        assert (
            not any("operations a second" in problem for problem in problems(changed))
        ) is possible


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("plain", None),
        ("caf\u00e9, \u03b1 = 0.5 \u00c5, \u4e2d\u6587", None),
        ("one\ttwo\nthree", None),
        ("\u05d1\u05b0\u05bc\u05c1", None),
        ("e\u0301\u0301\u0301\u0301", "more than 3 combining marks on one letter"),
        *(
            (f"a{char}b", f"the unseen character U+{ord(char):04X}")
            for char in "\x00\x1b\x7f\x85\u00a0\u00ad\u034f\u061c\u115f\u180e\u200b\u200d\u2028"
            "\u202e\u2060\u2066\u2800\u3000\u3164\ufe0f\ufeff\uffa0\ue000\U000e0041\U000e0100"
        ),
    ],
)
def test_what_an_eye_does_not_see_is_named(text: str, says: str | None) -> None:
    for value in ({"a": text}, {text: 1}, {"a": [{"b": text}]}):
        found = list(hidden(json.dumps(value, ensure_ascii=False).encode()))
        escaped = list(hidden(json.dumps(value).encode()))
        assert found == escaped
        assert [each.partition(" holds ")[2] for each in found] == ([] if says is None else [says])


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_named_by_its_field(word: str, tmp_path: Path) -> None:
    text = good_files()[0].read_text()
    record = json.loads(text)
    total = json.dumps(record["rungs"][2]["test"]["total"])
    (tmp_path / "x.json").write_text(text.replace(total, word, 1))
    with pytest.raises(FailedError, match=r"rungs\.2\.test\.total is -?(nan|inf); a value that"):
        read_record(tmp_path / "x.json")


def test_thousands_of_records_take_the_memory_of_one(tmp_path: Path) -> None:
    def peak(copies: int) -> int:
        folder = tmp_path / str(copies)
        record = json.loads(good_files()[0].read_bytes())
        for number in range(copies):
            record["run_id"] = f"small-60s-seed0-{number}"
            path = place_of(record, folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(json.dumps(record).encode())
        gc.collect()
        tracemalloc.start()
        assert len(review([folder])) == copies
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(4), peak(24)
    # Reports and digests stay, no record: one of these takes more than 300 kB in memory.
    assert (many - few) / 20 < 10_000


def test_keys_given_twice_are_found_wherever_they_hide() -> None:
    assert list(hidden(b'{"a": {"b": 1}, "c": [{"b": ": x"}]}')) == []
    twice = (
        b'{"a": 1, "a": 1}',
        b'{"a": 1 ,"\\u0061" : 1}',
        b'[{"x": {"a": 1, "a": 2}}]',
        b'{"a": ":", "b": {"a": 1,\n"a"\n:1}}',
    )
    for data in twice:
        assert any("'a' is given twice" in problem for problem in hidden(data))
