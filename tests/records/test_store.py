"""Records on disk: round trips, order, atomicity, hostile names, broken files."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from factories import make_record
from hypothesis import given
from hypothesis import strategies as st

from equivbench.errors import FailedError, UsageError
from equivbench.records.files import read_bounded, write_atomically
from equivbench.records.schema import RunRecord
from equivbench.records.store import (
    InvalidRecordWarning,
    load_results,
    read_record,
    record_path,
    write_record,
)

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    total=finite,
    twirled=st.none() | finite,
    config=st.dictionaries(st.text(), finite | st.text() | st.lists(finite)),
)
def test_round_trip_is_exact(
    tmp_path_factory: pytest.TempPathFactory, total: float, twirled: float | None, config: dict
) -> None:
    out = tmp_path_factory.mktemp("out")
    record = make_record(model={"config": config})
    record.trace[0].test.total, record.trace[0].test.twirled = total, twirled
    assert read_record(write_record(record, out)) == record


def test_path_follows_the_contract(tmp_path: Path) -> None:
    record = make_record(run_id="small-60s-seed3", arm="augmented")
    path = write_record(record, tmp_path)
    assert path == tmp_path / "toy-cpu-2t" / "toy" / "pair" / "augmented" / "small-60s-seed3.json"
    assert os.listdir(path.parent) == [path.name]


def test_a_link_that_comes_in_the_way_while_a_file_is_opened_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(Path, "is_symlink", lambda path: False)
    with pytest.raises(FailedError, match="cannot read"):
        read_bounded(tmp_path / "link", follow=False)
    assert read_bounded(tmp_path / "link") == b"{}"


def test_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_record(make_record(), tmp_path / "a").read_bytes()
    assert first == write_record(make_record(), tmp_path / "b").read_bytes()
    assert list(json.loads(first)) == list(RunRecord.__struct_fields__)


@pytest.mark.parametrize("field", ["run_id", "pair", "task", "arm"])
@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "", "a/b", "a\\b", ".hidden", "/etc", "a\0b", "x" * 300, "a\n", "é"]
)
def test_no_name_leaves_the_folder(tmp_path: Path, field: str, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be part of a file name"):
        write_record(make_record(**{field: name}), tmp_path)
    assert not any(tmp_path.iterdir())


@given(name=st.text(max_size=40))
def test_every_path_is_refused_or_lies_five_levels_below(name: str) -> None:
    try:
        path = record_path(make_record(run_id=name), "out")
    except UsageError:
        return
    assert path.parent == Path("out/toy-cpu-2t/toy/pair/equivariant")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_that_is_not_finite_is_written(tmp_path: Path, value: float) -> None:
    record = make_record()
    record.trace[2].test.total = value
    with pytest.raises(FailedError, match=r"trace\.2\.test\.total is -?(nan|inf)"):
        write_record(record, tmp_path)
    assert not any(tmp_path.iterdir())


def test_order_does_not_depend_on_names_or_arguments(tmp_path: Path) -> None:
    records = [
        make_record(seed=seed, arm=arm, run_id=f"small-seed{seed}")
        for seed in (2, 10, 0)
        for arm in ("b", "a")
    ]
    paths = [write_record(record, tmp_path) for record in records]
    expected = sorted(records, key=lambda record: (record.arm, record.seed))
    assert load_results(tmp_path) == expected
    assert load_results(str(tmp_path)) == expected
    assert load_results(paths[::-1]) == expected
    assert load_results([tmp_path, paths[0]]) == expected, "a file named twice counts once"
    assert load_results(paths[0]) == [records[0]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"{}", "not a valid record"),
        (b"[1]", "not a valid record"),
        (b"\xff\xfe", "not a valid record"),
        (b'{"schema_version": 99}', "schema version 99"),
        (b'{"schema_version": "1"}', "not a valid record"),
    ],
)
def test_broken_file_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(content)
    with pytest.raises(FailedError, match=rf"broken\.json.*{sentence}"):
        load_results(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = write_record(make_record(), tmp_path / "out").read_bytes()
    cut = tmp_path / "cut.json"
    for length in range(
        0, len(whole.rstrip()), 97
    ):  # a prime step: cuts fall everywhere in keys, numbers and strings
        cut.write_bytes(whole[:length])
        with pytest.raises(FailedError, match=r"cut\.json"):
            read_record(cut)


def test_unknown_field_is_refused(tmp_path: Path) -> None:
    path = write_record(make_record(), tmp_path)
    path.write_text(path.read_text().replace('"restarts"', '"restart"'))
    with pytest.raises(FailedError, match="restart"):
        load_results(tmp_path)


def test_invalid_files_can_be_left_out_with_a_warning(tmp_path: Path) -> None:
    write_record(make_record(), tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.warns(InvalidRecordWarning, match=r"broken\.json"):
        assert load_results(tmp_path, invalid="warn") == [make_record()]


def test_hidden_files_are_not_records(tmp_path: Path) -> None:
    write_record(make_record(), tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.json").write_text("{")
    (tmp_path / ".x.json").write_text("{")
    assert load_results(tmp_path) == [make_record()]


def test_nothing_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="holds no records"):
        load_results(tmp_path)
    with pytest.raises(FailedError, match="does not exist"):
        load_results(tmp_path / "nowhere")
    lines = tmp_path / "kernels.jsonl"
    lines.write_text("{}\n")
    with pytest.raises(FailedError, match=f"name a results folder, such as {tmp_path}, or"):
        load_results(lines)


def test_failed_write_keeps_the_old_record_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_record(make_record(status="interrupted", reason="stopped"), tmp_path)
    before = path.read_bytes()

    def disk_is_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(FailedError, match=r"cannot write .*equivariant.*No space left on device"):
        write_record(make_record(steps=1), tmp_path)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def test_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(FailedError, match="cannot write"):
        write_record(make_record(), tmp_path / "out")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FailedError, match="Permission denied"):
            write_record(make_record(), tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


@given(data=st.binary())
def test_atomic_write_replaces_whole_files(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("files") / "a" / "b.bin"
    write_atomically(path, b"old")
    write_atomically(path, data)
    assert path.read_bytes() == data
    assert os.listdir(path.parent) == ["b.bin"]


def test_a_record_never_replaces_that_of_another_run(tmp_path: Path) -> None:
    first = write_record(make_record(), tmp_path)
    again = make_record(contest="another", steps=2000, samples=64000)
    path = write_record(again, tmp_path)
    assert (path.stem, again.run_id) == (f"{first.stem}-2",) * 2
    assert (read_record(first), read_record(path)) == (make_record(), again)
    third = write_record(make_record(contest="a third"), tmp_path)
    assert third.stem == f"{first.stem}-3"


def test_the_same_record_is_written_once(tmp_path: Path) -> None:
    assert write_record(make_record(), tmp_path) == write_record(make_record(), tmp_path)
    assert len(load_results(tmp_path)) == 1


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_goes_on_has_one_record(tmp_path: Path, status: str) -> None:
    stopped = make_record(status=status, reason="stopped")
    path = write_record(stopped, tmp_path)
    assert write_record(make_record(), tmp_path) == path
    assert load_results(tmp_path) == [make_record()]
    # What came to its end stays, whatever is said of the same run afterwards.
    assert write_record(stopped, tmp_path) == path
    assert load_results(tmp_path) == [make_record()]


def test_what_is_no_record_is_not_replaced(tmp_path: Path) -> None:
    path = record_path(make_record(), tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("notes")
    assert write_record(make_record(), tmp_path).stem == f"{path.stem}-2"
    assert path.read_text() == "notes"


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_of_many_writers_in_one_second_nobody_loses_a_record(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:

        def no_link(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", no_link)
    records = [make_record(contest=f"contest {number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        paths = list(pool.map(lambda record: write_record(record, tmp_path), records))
    assert len(set(paths)) == 12
    assert {record.contest for record in load_results(tmp_path)} == {
        record.contest for record in records
    }
