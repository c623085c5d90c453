"""What is known of records that have not changed: the same as what a new look finds, whatever
happens to the files, to the cache or to the processes that look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_record
from good_results import copy_good, good_files

from equivbench.errors import FailedError
from equivbench.records import look, looking, shelf
from equivbench.records.copies import Report
from equivbench.records.curves import curve
from equivbench.records.disturbed import disturbance
from equivbench.records.evaluations import judged_under
from equivbench.records.look import NOTHING, look_at, outline_of, see
from equivbench.records.looking import look_through, see_all
from equivbench.records.outline import RecordOutline, SharedParts
from equivbench.records.shelf import Shelf
from equivbench.records.store import load_results, read_record, write_record
from equivbench.records.submission import admit, admitted, review
from equivbench.registry import PAIRS

Names = list[str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything is kept at once, however few and however fresh the files are."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(looking, "LEAST_KEPT", 1)
    monkeypatch.setattr(look, "_SETTLED", -(10**10))
    return tmp_path / "cache"


@pytest.fixture
def looks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    """The names of the files that were looked at since this was last cleared."""
    found: Names = []

    def noted(file: Path, *, outlined: bool) -> look.Seen:
        found.append(file.name)
        return see(file, outlined=outlined)

    monkeypatch.setattr(looking, "see", noted)
    return found


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return copy_good(tmp_path / "results")


def said(reports: list[Report]) -> list[tuple[Any, ...]]:
    return [(each.path, each.problems, each.remarks, each.incomparable) for each in reports]


def names(good: Path) -> Names:
    return sorted(file.name for file in good.rglob("*.json"))


def change(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(file.read_bytes())
    edit(record)
    file.write_text(json.dumps(record), encoding="utf-8")


def test_a_record_that_has_not_changed_is_looked_at_once(good: Path, looks: Names) -> None:
    before = {file: file.stat().st_mtime_ns for file in good.rglob("*")}
    first = said(review([good]))
    assert sorted(looks) == names(good)
    looks.clear()
    assert said(review([good])) == first
    assert admitted(good) == load_results(good)
    assert looks == []
    assert {file: file.stat().st_mtime_ns for file in good.rglob("*")} == before, (
        "nothing is written beside the records"
    )


def test_it_is_known_however_the_folder_is_named(
    good: Path, looks: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit(good)
    looks.clear()
    monkeypatch.chdir(good)
    for path in (".", "../results", *(each.name for each in good.iterdir()), "./"):
        below = [*Path(path).rglob("*-seed0-*.json")]
        assert len(admit(path).outlines) == len(below) > 0
    assert looks == []


def test_a_record_that_changed_is_looked_at_again_though_it_has_its_old_size_and_time(
    good: Path, looks: Names
) -> None:
    file = next(good.rglob("*.json"))
    data, times = file.read_bytes(), file.stat()
    review([good])
    looks.clear()
    wall = str(json.loads(data)["clock"]["wall"])
    other = ("8" if wall.startswith("9") else "9") + wall[1:]
    changed = data.replace(f'"wall": {wall}'.encode(), f'"wall": {other}'.encode())
    assert len(changed) == len(data)
    assert changed != data
    file.write_bytes(changed)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "clock's parts" in " ".join(
        next(each for each in review([good]) if each.path == str(file)).problems
    )
    assert looks == [file.name]
    file.write_bytes(data)
    assert all(report.valid for report in review([good]))


def test_another_file_under_its_name_is_looked_at(good: Path, looks: Names, tmp_path: Path) -> None:
    file = next(good.rglob("*.json"))
    review([good])
    other = tmp_path / "other.json"
    other.write_bytes(file.read_bytes().replace(b'"small"', b'"SMALL"'))
    times = file.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)
    looks.clear()
    assert not next(each for each in review([good]) if each.path == str(file)).valid
    assert looks == [file.name]
    file.unlink()
    file.symlink_to(good_files()[0])
    assert "symbolic link" in str(
        next(each for each in review([good]) if each.path == str(file)).problems
    )


def test_what_is_wrong_with_a_record_is_found_each_time(good: Path, looks: Names) -> None:
    file = next(good.rglob("*.json"))
    change(file, lambda record: record["clock"].update(wall=1.0))
    first = said(review([good]))
    looks.clear()
    assert said(review([good])) == first
    assert looks == [file.name]


def test_a_record_from_the_future_and_one_out_of_its_place_are_not_kept(
    good: Path, cache: Path
) -> None:
    seen = see(next(good.rglob("*.json")), outlined=True)
    place, digest = seen.look.place, seen.look.digest
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    later = msgspec.structs.replace(digest, created=tomorrow)
    ahead = msgspec.structs.replace(seen, look=msgspec.structs.replace(seen.look, digest=later))
    for where, one, kept in ((place, ahead, 0), ("a/b/c/d/e.json", seen, 0), (place, seen, 1)):
        looks = looking.KeptLooks(str(good))
        looks.add(where, one, frozenset())
        looks.close()
        assert len(list(Shelf("looks", str(good)).items())) == kept


def test_a_file_that_may_have_changed_while_it_was_read_is_looked_at_again(
    good: Path, looks: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "_SETTLED", 3600 * 10**9)
    review([good])
    looks.clear()
    review([good])
    assert sorted(looks) == names(good)


def test_another_version_of_the_code_looks_again(
    good: Path, looks: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    review([good])
    looks.clear()
    monkeypatch.setattr(shelf, "code_digest", lambda: "another")
    review([good])
    assert sorted(looks) == names(good)


def test_what_the_oldest_versions_of_the_code_kept_is_deleted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        monkeypatch.setattr(shelf, "code_digest", lambda number=number: f"version{number}")
        Shelf("looks", "here").add([(b"a", b"1")])
        os.utime(cache / "records" / f"version{number}", (number, number))
    found = sorted(each.name for each in (cache / "records").iterdir())
    assert found == ["version2", "version3", "version4"]


@pytest.mark.parametrize("spoil", ["cut", "other bytes", "other JSON", "gone"])
def test_a_spoilt_cache_costs_time_and_nothing_else(
    spoil: str, good: Path, cache: Path, looks: Names
) -> None:
    first = said(review([good]))
    for file in (cache / "records").rglob("*.json.z"):
        data = file.read_bytes()
        match spoil:
            case "cut":
                file.write_bytes(data[: len(data) // 2])
            case "other bytes":
                file.write_bytes(b"x" * 100)
            case "other JSON":
                file.write_bytes(zlib.compress(b'[["YQ==", {"a": 1}]]'))
            case "gone":
                file.unlink()
    looks.clear()
    assert said(review([good])) == first
    assert [each.run_id for each in admit(good).outlines] == [
        each.run_id for each in load_results(good)
    ]
    assert set(looks) == set(names(good))


def test_where_the_cache_cannot_be_written_nothing_is_kept(
    good: Path, looks: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "file" / "cache"))
    first = said(review([good]))
    assert said(review([good])) == first
    assert sorted(looks) == sorted(2 * names(good))


def test_few_records_leave_nothing_in_the_cache(
    good: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LEAST_KEPT", 1 + len(good_files()))
    admit(good)
    assert not cache.exists()


def test_what_this_process_declares_has_its_say(
    tmp_path: Path, looks: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of a pair that nobody knows is sound; one that contradicts a pair is not."""
    record = make_record()
    path = write_record(record, tmp_path / "results")
    assert review([path.parents[4]])[0].valid
    pair = next(iter(PAIRS.without_plugins().values())).value
    snapshot = PAIRS.snapshot()
    try:
        PAIRS.add(replace(pair, task=record.task, name=record.pair))
        assert not review([path.parents[4]])[0].valid
    finally:
        PAIRS.restore(snapshot)
    assert review([path.parents[4]])[0].valid
    assert len(looks) == 2, "what was found without the pair is known, what was found with it not"


def many(good: Path) -> list[Path]:
    """Six good records, one that is none, and one that is not there any more."""
    broken = good / "broken.json"
    broken.write_text("{", encoding="utf-8")
    return [*sorted(good.rglob("*.json")), good / "gone.json"]


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "usable_cores", lambda: 2)
    monkeypatch.setattr(looking, "LEAST_FOR_PROCESSES", 1)
    monkeypatch.setattr(looking, "BATCH", 3)


def test_processes_see_what_one_sees(
    good: Path, two_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = many(good)
    alone = list(see_all(files, outlined=True, by_processes=False))
    assert [one.outline != NOTHING for one in alone] == [
        bool(file.parent != good) for file in files
    ]
    monkeypatch.setattr(looking, "see", None)  # this process looks at nothing itself
    for found, expected in zip(see_all(files, True, True), alone, strict=True):
        assert (found.look, found.content) == (expected.look, expected.content)
        assert bytes(found.outline) == bytes(expected.outline)


@pytest.mark.parametrize("answers", [0, 1])
def test_what_a_process_that_died_has_left_is_looked_at(
    answers: int, good: Path, two_processes: None, looks: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
import msgspec, os, sys
from pathlib import Path
from equivbench.records.look import see
for line in [sys.stdin.buffer.readline() for _ in range({answers})]:
    files, outlined = msgspec.json.decode(line, type=tuple[list[bytes], bool])
    seen = [see(Path(os.fsdecode(file)), outlined=outlined) for file in files]
    sys.stdout.buffer.write(msgspec.json.encode(seen) + b"\\n")
"""
    path = os.pathsep.join(sys.path)
    monkeypatch.setattr(
        looking,
        "_start",
        lambda: subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        ),
    )
    files = many(good)
    found = [one.content for one in see_all(files, outlined=False, by_processes=True)]
    assert found == [see(file, outlined=False).content for file in files]
    assert len(looks) == len(files) - 2 * 3 * answers


def test_an_outline_says_of_a_record_what_boards_read(good: Path) -> None:
    for file in good_files():
        record = read_record(file)
        outline = outline_of(record)
        assert (outline.trace, outline.rungs) == ([], [])
        assert judged_under(outline) == judged_under(record)
        assert disturbance(outline) == disturbance(record)
        assert record.final is not None
        assert outline.final == msgspec.structs.replace(record.final, by={}, groups=None)
        data = msgspec.json.encode(outline)
        assert msgspec.json.decode(data, type=RecordOutline) == outline
        assert 5 * len(data) < len(msgspec.json.encode(record))
        with pytest.raises(TypeError, match=record.run_id):
            curve(outline)


def test_a_disturbed_run_is_one_in_outline() -> None:
    record = make_record(machine_share={"p90_over_p10": 28.0})
    assert disturbance(outline_of(record)) == disturbance(record) is not None


def test_equal_parts_are_shared_and_others_are_not() -> None:
    shared = SharedParts()
    first, second, other = (
        shared.share(outline_of(make_record(seed=seed, model={"parameters": size})))
        for seed, size in ((0, 1000), (1, 1000), (2, 2000))
    )
    assert first.recipe is second.recipe is other.recipe
    assert first.model is second.model
    assert (second.model.parameters, other.model.parameters) == (1000, 2000)


def test_a_record_that_changed_after_it_was_looked_at_is_not_taken_for_it(good: Path) -> None:
    found = admit(good)
    whole = found.record(found.outlines[0])
    assert whole == next(each for each in load_results(good) if each.run_id == whole.run_id)
    file = next(file for file in good.rglob(f"{whole.run_id}.json") if whole.arm in file.parts)
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(FailedError, match="was changed while it was read"):
        found.record(found.outlines[0])


def test_looks_come_in_the_order_of_the_files(good: Path, cache: Path) -> None:
    files = many(good)
    for order in (files, files[::-1]):
        assert [each.file for each in look_through(order, outlined=True)] == order
        assert [each.outline is None for each in look_through(order, outlined=True)] == [
            file.parent == good for file in order
        ]


def test_a_look_depends_on_the_bytes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the folders of the machine that looks, which a record could name in passing."""
    data = good_files()[0].read_bytes()
    first, _ = look_at(data, "x")
    here = tmp_path / "a b"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(Path, "home", lambda: Path("/somewhere else"))
    assert look_at(data, "x")[0] == first


def test_additions_of_several_processes_are_all_there(cache: Path) -> None:
    one, other = Shelf("looks", "here"), Shelf("looks", "here")
    one.add([(b"a", b"1"), (b"b", b"2")])
    other.add([(b"a", b"3")])
    one.add([])
    assert {key: bytes(value) for key, value in one.items()} == {b"a": b"3", b"b": b"2"}
    assert list(Shelf("looks", "there").items()) == []


def test_many_additions_become_few_files_that_hold_what_counts(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "SEGMENT", 10)
    kept = Shelf("looks", "here")
    for number in range(30):
        kept.add([(b"%d" % (number % 25), b"%d" % number)])
    kept.tidy(lambda key: key != b"7")
    assert len(list(kept.folder.iterdir())) == 30
    monkeypatch.setattr(shelf, "MOST_SEGMENTS", 20)
    kept.tidy(lambda key: key != b"7")
    assert len(list(kept.folder.iterdir())) == 3
    expected = {b"%d" % (number % 25): b"%d" % number for number in range(30)}
    del expected[b"7"]
    assert {key: bytes(value) for key, value in kept.items()} == expected
